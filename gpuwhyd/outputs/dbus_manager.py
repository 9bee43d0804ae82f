"""The methods of org.gpuwhyd1.Manager that answer from the last report, at once."""

from collections.abc import Awaitable, Callable

from gpuwhyd.bus.messages import MethodCall
from gpuwhyd.model import FieldSource, Report
from gpuwhyd.outputs import dbus_views as views
from gpuwhyd.outputs.dbus_contract import gpu_path, own_error
from gpuwhyd.outputs.dbus_dispatch import Answer, Body
from gpuwhyd.outputs.dbus_privacy import ANYONE, Viewer
from gpuwhyd.outputs.dbus_sources import sources_view

Methods = dict[str, Callable[[MethodCall], Answer]]


class ManagerViews:
    """`current` gives the last report, `viewer` who a sender is."""

    def __init__(
        self,
        *,
        current: Callable[[], Report | None],
        viewer: Callable[[str], Awaitable[Viewer]],
        health: Callable[[], dict[str, object]],
        sources: Callable[[], tuple[FieldSource, ...]],
        sample_interval_seconds: Callable[[], float],
    ) -> None:
        self._current = current
        self._viewer = viewer
        self._health = health
        self._sources = sources
        self._sample_interval_seconds = sample_interval_seconds

    def methods(self) -> Methods:
        return {
            "Explain": self._explain,
            "GetSummary": self._get_summary,
            "GetMetrics": self._get_metrics,
            "GetSources": self._get_sources,
            "GetProcesses": self._get_processes,
            "GetHealth": self._get_health,
        }

    def _explain(self, call: MethodCall) -> Answer:
        report, gpu_id = known_gpu(self._current(), call.body[0])
        explanation = report.explanations.get(gpu_id)
        if explanation is None:
            raise own_error("Failed", f"{call.body[0]} has no explanation yet")
        return self._shown(
            call, report, lambda viewer: (views.explanation_view(report, explanation, viewer),)
        )

    def _get_summary(self, call: MethodCall) -> Answer:
        report, interval = self._current(), self._sample_interval_seconds()
        return self._shown(call, report, lambda viewer: (views.summary(report, interval, viewer),))

    def _get_metrics(self, _call: MethodCall) -> Answer:
        return (views.metrics(self._current()),)

    def _get_sources(self, call: MethodCall) -> Answer:
        report, gpu_id = known_gpu(self._current(), call.body[0])
        return (sources_view(views.readings_by_id(report)[gpu_id], self._sources()),)

    def _get_processes(self, call: MethodCall) -> Answer:
        report, gpu_id = known_gpu(self._current(), call.body[0])
        return self._shown_to(call, lambda viewer: (views.processes(report, gpu_id, viewer),))

    def _get_health(self, _call: MethodCall) -> Answer:
        return (self._health(),)

    def _shown(self, call: MethodCall, report: Report | None, view: Callable[[Viewer], Body]) -> Answer:
        """Who asks matters only where processes are hidden; else the answer needs no look-up."""
        if report is not None and report.snapshot.processes_hidden:
            return self._shown_to(call, view)
        return view(ANYONE)

    async def _shown_to(self, call: MethodCall, view: Callable[[Viewer], Body]) -> Body:
        return view(await self._viewer(call.sender))


def known_gpu(report: Report | None, path: object) -> tuple[Report, str]:
    """The report and the id of the GPU at an object path. Raises CallError UnknownGpu, listing those that exist."""
    by_path = {gpu_path(gpu_id): gpu_id for gpu_id in views.readings_by_id(report)}
    gpu_id = by_path.get(str(path))
    if report is None or gpu_id is None:
        raise unknown_gpu(report, path)
    return report, gpu_id


def unknown_gpu(report: Report | None, path: object) -> Exception:
    if report is None:
        return own_error("UnknownGpu", f"there is no GPU {path} yet: no sample has been taken")
    known = ", ".join(gpu_path(gpu_id) for gpu_id in views.readings_by_id(report))
    return own_error("UnknownGpu", f"there is no GPU {path}; there is {known or 'none on this machine'}")
