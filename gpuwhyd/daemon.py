"""The composition root: builds everything, runs the one loop, reloads, shuts down."""

import asyncio
import contextlib
import logging
import os
import re
import resource as limits
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gpuwhyd import __version__
from gpuwhyd.backends.catalog import BACKEND_NAMES, FALLBACKS, Roots, enabled_backends
from gpuwhyd.backends.cpu_temperature import CpuTemperature
from gpuwhyd.bus import library
from gpuwhyd.config import DEFAULT_PATH, Settings, load
from gpuwhyd.engine.engine import Engine
from gpuwhyd.errors import ConfigError
from gpuwhyd.guarded_engine import SECTION as ENGINE
from gpuwhyd.guarded_engine import GuardedEngine
from gpuwhyd.kernel_files import read_text
from gpuwhyd.model import Report, Snapshot, as_plain
from gpuwhyd.outputs.base import Output
from gpuwhyd.outputs.dbus_service import BusService
from gpuwhyd.outputs.history import History, RecentHistory, open_history
from gpuwhyd.outputs.journal import SECTION as OUTBOX
from gpuwhyd.outputs.journal import JournalOutput
from gpuwhyd.outputs.notify import NotifyOutput
from gpuwhyd.outputs.state import StateStore
from gpuwhyd.outputs.state_lock import lock_state
from gpuwhyd.processes.gpu_users import CardUsers
from gpuwhyd.processes.hidepid import HidepidWatch
from gpuwhyd.processes.host import HostWatch
from gpuwhyd.processes.table import ProcessTable
from gpuwhyd.sampler import Sampler, SystemClock, suspended_seconds
from gpuwhyd.uevents import UeventWatch, watched

log = logging.getLogger(__name__)

SAVE_SECONDS = 60.0
"""How often learned levels and heat are saved when nothing happens."""
_STATM = re.compile(r"[0-9]+ ([0-9]{1,15}) ")
"""The second number of /proc/self/statm: resident pages (proc(5))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says."""

    config: Path | None = None
    bus: str = "system"
    simulate: str | None = None
    procfs: Path = Path("/proc")
    sysfs: Path = Path("/sys")
    state_dir: Path | None = None
    journal: bool | None = None
    """Whether events go to the journal; `None`: yes, unless they are simulated."""


class Daemon:
    """Builds all parts; `run` lives until it is told to stop. Must be made inside the running event loop. Raises
    StateError where another one lives with the same state, and ConfigError for a wrong scenario.
    """

    def __init__(self, options: Options, settings: Settings) -> None:
        self._options = options
        self._settings = self._started_with = settings
        self._stop = asyncio.Event()
        self._unsaved = asyncio.Event()
        self._clock = SystemClock()
        self._started_usec, self._started_seconds = self._clock.wall_usec(), self._clock.boottime_seconds()
        self._samples = 0
        self._report: Report | None = None
        self._notes: list[str] = []

        self._state_path = _state_path(options)
        self._state_lock = None if self._state_path is None else lock_state(self._state_path)
        self._store = StateStore(self._state_path)
        saved = self._store.load()
        self._guarded = GuardedEngine(self._restored_engine, self._store, saved.get(ENGINE))
        self._sampler = build_sampler(options, settings)
        self._recent = RecentHistory()
        history: History = self._recent
        self._journal: JournalOutput | None = None
        if options.simulate is None if options.journal is None else options.journal:
            history, written = open_history(self._recent)
            self._journal = JournalOutput(
                store=self._store,
                restored=saved.get(OUTBOX),
                already_written=written,
                settings=settings.journal,
            )
        self._service = BusService(
            address=options.bus,
            history=history,
            reload=self.reload,
            refresh=self._sampler.refresh,
            health=self._health,
            sources=self._sampler.sources,
            sample_interval_seconds=lambda: self._sampler.interval_seconds,
            on_sleep=self._sampler.on_sleep,
            follow_logind=options.bus == "system",
        )
        self._notify = NotifyOutput.from_environment(os.environ)
        # the journal comes first: its outbox must be of the same moment as the engine's state
        outputs = (self._journal, self._recent, self._service, self._notify)
        self._outputs: tuple[Output, ...] = tuple(output for output in outputs if output is not None)

    async def run(self) -> None:
        """Until SIGTERM or SIGINT. SIGHUP reloads."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        reloads: set[asyncio.Task[None]] = set()

        def reload() -> None:
            task = loop.create_task(self._reload_on_signal())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        loop.add_signal_handler(signal.SIGHUP, reload)
        parts = [
            loop.create_task(self._live(), name="sampling"),
            loop.create_task(self._service.run(), name="bus"),
            loop.create_task(self._save_now_and_then(), name="state"),
        ]
        stop = loop.create_task(self._stop.wait(), name="stop")
        uevents = self._watch_uevents()
        try:
            ended, _ = await asyncio.wait((stop, *parts), return_when=asyncio.FIRST_COMPLETED)
            for task in ended - {stop}:
                task.result()  # raises what ended it
        finally:
            self._notify.stopping()
            for task in (stop, *parts, *reloads):
                task.cancel()
            await asyncio.gather(stop, *parts, *reloads, return_exceptions=True)
            if uevents is not None:
                uevents.close()
            await self._close()

    async def reload(self) -> None:
        """Takes the configuration file again; a wrong one changes nothing and raises ConfigError."""
        self._notify.reloading()
        try:
            settings = load(self._options.config, backends=BACKEND_NAMES)
            self._settings = settings
            self._guarded.engine.reconfigure(settings.engine)
            self._sampler.reconfigure(settings.sampling)
            if self._journal is not None:
                self._journal.configure(settings.journal)
            self._notes = _only_at_the_next_start(settings, self._started_with)
            for note in self._notes:
                log.warning("%s", note)
            log.info("configuration taken over")
        except ConfigError as error:
            self._notes = [f"configuration not taken over: {error}"]
            log.error("configuration not taken over, the old one stays: %s", error)  # noqa: TRY400 - the user's mistake
            raise
        finally:
            self._notify.reloaded()

    async def _live(self) -> None:
        """The life of a reading."""
        async for snapshot in self._sampler.snapshots():
            self._report = report = self._guarded.feed(snapshot)
            self._samples += 1
            self._sampler.fan_moves = self._guarded.engine.a_fan_moves
            for output in self._outputs:
                await output.publish(report)
            if report.events:
                self._unsaved.set()

    async def _save_now_and_then(self) -> None:
        """After events also where there is no journal, whose output saves them first."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SAVE_SECONDS):
                    await self._unsaved.wait()
            self._unsaved.clear()
            await self._store.save_in_thread()

    async def _reload_on_signal(self) -> None:
        with contextlib.suppress(ConfigError):  # logged by reload
            await self.reload()

    def _watch_uevents(self) -> UeventWatch | None:
        """Of this machine's own kernel: they tell nothing of simulated cards, or of a /sys that is elsewhere."""
        if self._options.simulate is not None or self._options.sysfs != Roots().sysfs:
            return None
        return watched(self._sampler.look_anew)

    async def _close(self) -> None:
        """Each part, whatever the others do: the state above all."""
        for close in (*(output.close for output in self._outputs), self._sampler.close):
            try:
                await close()
            except Exception:  # of one part: it must not cost the others theirs, nor the state its file
                log.exception("%s failed", close.__qualname__)
        self._store.save()
        if self._state_lock is not None:
            self._state_lock.close()

    # -- building -------------------------------------------------------------------------------------------------

    def _restored_engine(self, saved: object) -> Engine:
        boot_id = _boot_id(self._options.procfs)
        if isinstance(saved, Mapping):
            try:
                return Engine(self._settings.engine, saved, boot_id=boot_id)
            except (TypeError, ValueError, KeyError) as error:
                log.warning("the saved state does not fit (%s); learning anew", error)
        return Engine(self._settings.engine, boot_id=boot_id)

    def _health(self) -> dict[str, object]:
        """What GetHealth and `gpuwhy doctor` tell of the daemon itself."""
        snapshot = self._report.snapshot if self._report else None
        usage = limits.getrusage(limits.RUSAGE_SELF)
        return {
            "version": __version__,
            "started_usec": self._started_usec,
            "uptime_seconds": self._clock.boottime_seconds() - self._started_seconds,
            "samples": self._samples,
            "last_sample_seconds_ago": None if snapshot is None else self._sample_age(snapshot),
            "sample_interval_seconds": self._sampler.interval_seconds,
            "backends": [] if snapshot is None else [as_plain(health) for health in snapshot.backends],
            "bus_library": library.description(),
            "python": ".".join(map(str, sys.version_info[:3])),
            "journal": self._journal.health() if self._journal else {"state": "off"},
            "state_file": None if self._state_path is None else str(self._state_path),
            "config_file": str(config) if (config := self._options.config or DEFAULT_PATH).exists() else None,
            "processes_hidden": snapshot.processes_hidden if snapshot else None,
            "memory_bytes": _resident_bytes(),
            "threads": threading.active_count(),
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "notes": [
                *self._notes,
                *([self._guarded.fault] if self._guarded.fault else []),
                *self._rules_without_their_gpu(),
            ],
        }

    def _rules_without_their_gpu(self) -> list[str]:
        if self._report is None:
            return []
        gpus = [reading.gpu for reading in self._report.snapshot.readings]
        present = {name for gpu in gpus for name in (gpu.id, gpu.pci_address)}
        return [
            f'rule "{rule.name}" watches {name}, which is not there; there is {", ".join(gpu.id for gpu in gpus) or "none"}'
            for rule in self._settings.engine.rules
            for name in rule.gpus
            if name not in present
        ]

    def _sample_age(self, snapshot: Snapshot) -> float | None:
        if self._options.simulate is not None:
            return None  # simulated time runs faster
        return self._clock.boottime_seconds() - snapshot.boottime_seconds


def build_sampler(options: Options, settings: Settings) -> Sampler:
    """What reads this machine's cards, or the simulated ones. Raises ConfigError for a wrong scenario."""
    if options.simulate is not None:
        return _build_simulation(options.simulate, settings)
    roots = Roots(sysfs=options.sysfs, procfs=options.procfs, fans=settings.fans)
    return Sampler(
        backends=enabled_backends(roots, settings.sampling.disabled_backends),
        instead_of=FALLBACKS,
        processes=ProcessTable(roots.procfs),
        gpu_users=CardUsers(procfs=roots.procfs, sysfs=roots.sysfs, own_pid=os.getpid()),
        clock=SystemClock(),
        settings=settings.sampling,
        processes_hidden=HidepidWatch(roots.procfs),
        suspended_seconds=suspended_seconds,
        host=HostWatch(roots.procfs, roots.sysfs, cpu_temperature=CpuTemperature(roots.sysfs).read),
    )


def _build_simulation(name: str, settings: Settings) -> Sampler:
    # imported here, because what reads real cards has no use for it
    from gpuwhyd.backends.simulated import SimulatedBackend, SimulatedProcesses  # noqa: PLC0415
    from gpuwhyd.backends.simulated_clock import scenario_clock  # noqa: PLC0415
    from gpuwhyd.backends.simulated_scenario import load_scenario  # noqa: PLC0415

    scenario = load_scenario(name)
    clock = scenario_clock(scenario)
    return Sampler(
        backends=(SimulatedBackend(scenario, clock.boottime_seconds),),
        processes=SimulatedProcesses(scenario, clock.boottime_seconds),
        clock=clock,
        settings=settings.sampling,
    )


async def run(options: Options) -> None:
    """Runs the daemon until it is stopped. Raises ConfigError for a wrong configuration or scenario, and StateError."""
    settings = load(options.config, backends=BACKEND_NAMES)
    await Daemon(options, settings).run()


def _only_at_the_next_start(settings: Settings, running: Settings) -> list[str]:
    """One line for each thing that the daemon keeps as it was when it started."""
    kept = {
        "disabled_backends": settings.sampling.disabled_backends != running.sampling.disabled_backends,
        "[[fan]]": settings.fans != running.fans,
    }
    return [
        f"the change of {key} takes effect at the next start: systemctl restart gpuwhyd"
        for key, has_changed in kept.items()
        if has_changed
    ]


def _state_path(options: Options) -> Path | None:
    """Where state is kept: systemd's StateDirectory, else the system daemon's place for root on the system bus, else the
    user's own, None: nowhere. On another bus runs another daemon, and one file is for one.
    """
    if options.state_dir is not None:
        return options.state_dir / "state.json"
    if options.simulate is not None:
        return None
    if directory := os.environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(directory) / "state.json"
    if os.geteuid() == 0 and options.bus == "system":
        return Path("/var/lib/gpuwhyd/state.json")
    home = os.environ.get("XDG_STATE_HOME", "")
    if not home.startswith("/"):  # the XDG Base Directory Specification: "ignore it"
        home = os.path.expanduser("~/.local/state")  # noqa: PTH111 - Path's raises for a user who is in no list
    return Path(home) / "gpuwhyd" / "state.json" if home.startswith("/") else None


def _boot_id(procfs: Path) -> str:
    try:
        return (procfs / "sys/kernel/random/boot_id").read_text("ascii").strip()
    except (OSError, ValueError) as error:
        log.warning(
            "cannot tell this boot from an earlier one (%s); open spikes are taken to be of this one", error
        )
        return ""


def _resident_bytes(statm: str = "/proc/self/statm") -> int | None:
    found = _STATM.match(read_text(statm))
    return int(found[1]) * limits.getpagesize() if found else None
