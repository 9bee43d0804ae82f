"""What is told to everyone: GPUs that come and go, properties that moved, spikes and alerts."""

from gpuwhyd.bus.codec import ObjectPath
from gpuwhyd.bus.connection import BusConnection
from gpuwhyd.model import AlertEvent, Event, EventKind, GpuIdentity, GpuReading, Report, SpikeEvent
from gpuwhyd.outputs import dbus_views as views
from gpuwhyd.outputs.dbus_changes import Announced, announced_in_full, changes
from gpuwhyd.outputs.dbus_contract import (
    GPU,
    MANAGER,
    OBJECT_MANAGER,
    PROPERTIES,
    ROOT_PATH,
    gpu_path,
    interfaces,
)
from gpuwhyd.outputs.dbus_dispatch import typed_properties

_SIGNALS = {
    EventKind.SPIKE_STARTED: "SpikeStarted",
    EventKind.SPIKE_UPDATED: "SpikeUpdated",
    EventKind.SPIKE_ENDED: "SpikeEnded",
    EventKind.ALERT_RAISED: "AlertRaised",
    EventKind.ALERT_CLEARED: "AlertCleared",
}


class Announcer:
    """Lives as long as one connection: whoever hears a new one knows nothing, so it begins with everything."""

    def __init__(self, connection: BusConnection) -> None:
        self._connection = connection
        self._manager = Announced()
        self._gpus: dict[str, tuple[GpuIdentity, Announced]] = {}

    def announce(
        self,
        report: Report,
        sample_interval_seconds: float,
        *,
        now_seconds: float,
        with_events: bool = True,
    ) -> None:
        """A GPU is added before anything is said of it, and removed after its last event.

        `now_seconds` is of a clock that listeners live by too, not of the snapshot: a simulation's runs faster.
        """
        with self._connection.together():
            readings = views.readings_by_id(report)
            topics = {gpu_id: views.gpu_topic(report, gpu_id) for gpu_id in readings}
            for gpu_id, reading in readings.items():
                self._announce_gpu(report, reading, topics[gpu_id], now_seconds)
            self._announce_manager(report, sample_interval_seconds, tuple(topics.values()), now_seconds)
            for event in report.events if with_events else ():
                self._announce_event(report, event)
            for gpu_id in [gpu_id for gpu_id in self._gpus if gpu_id not in readings]:
                self._remove(gpu_id)

    def _announce_gpu(
        self, report: Report, reading: GpuReading, topic: views.Topic, now_seconds: float
    ) -> None:
        properties = views.gpu_properties(report, reading)
        known = self._gpus.get(reading.gpu.id)
        if known is not None and known[0] != reading.gpu:
            self._remove(reading.gpu.id)  # its constant properties have changed
            known = None
        if known is None:
            announced = announced_in_full(_signalled(GPU, properties), topic, now_seconds)
            self._emit_added(reading.gpu.id, properties)
        else:
            moved, announced = changes(
                known[1],
                _signalled(GPU, properties),
                topic=topic,
                active=bool(properties["SpikeActive"]),
                now_seconds=now_seconds,
            )
            self._emit_changed(gpu_path(reading.gpu.id), GPU, moved)
        self._gpus[reading.gpu.id] = (reading.gpu, announced)

    def _announce_manager(
        self,
        report: Report,
        sample_interval_seconds: float,
        topics: tuple[views.Topic, ...],
        now_seconds: float,
    ) -> None:
        properties = views.manager_properties(report, sample_interval_seconds)
        moved, self._manager = changes(
            self._manager,
            _signalled(MANAGER, properties),
            topic=topics,
            active=bool(properties["FanActive"]),
            now_seconds=now_seconds,
        )
        self._emit_changed(ROOT_PATH, MANAGER, moved)

    def _announce_event(self, report: Report, event: Event) -> None:
        if isinstance(event, SpikeEvent):
            self._emit_event(event.kind, event.spike.spike_id, event.gpu, views.spike_signal(report, event))
        elif isinstance(event, AlertEvent):
            self._emit_event(event.kind, event.rule, event.gpu, views.alert_signal(report, event))

    def _remove(self, gpu_id: str) -> None:
        del self._gpus[gpu_id]
        self._emit(ROOT_PATH, OBJECT_MANAGER, "InterfacesRemoved", (ObjectPath(gpu_path(gpu_id)), [GPU]))

    def _emit_added(self, gpu_id: str, properties: views.Plain) -> None:
        added = {GPU: typed_properties(GPU, properties)}
        self._emit(ROOT_PATH, OBJECT_MANAGER, "InterfacesAdded", (ObjectPath(gpu_path(gpu_id)), added))

    def _emit_changed(self, path: str, interface: str, moved: views.Plain) -> None:
        if moved:
            self._emit(
                path, PROPERTIES, "PropertiesChanged", (interface, typed_properties(interface, moved), [])
            )

    def _emit_event(self, kind: EventKind, what: str, gpu: GpuIdentity, details: views.Plain) -> None:
        self._emit(ROOT_PATH, MANAGER, _SIGNALS[kind], (what, ObjectPath(gpu_path(gpu.id)), details))

    def _emit(self, path: str, interface: str, member: str, body: tuple[object, ...]) -> None:
        self._connection.emit(path, interface, member, interfaces()[interface].signals[member], body)


def _signalled(interface: str, properties: views.Plain) -> views.Plain:
    unsignalled = interfaces()[interface].unsignalled
    return {name: value for name, value in properties.items() if name not in unsignalled}
