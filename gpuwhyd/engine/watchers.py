"""Who only watches a card, and keeps it awake or busy by that."""

from collections.abc import Sequence
from dataclasses import dataclass

from gpuwhyd.engine.heat import Heat
from gpuwhyd.engine.idle_floor import IDLE_UTILIZATION_PERCENT
from gpuwhyd.engine.ledger import HOLDER, are_the_same, engine_weight
from gpuwhyd.model import GpuReading, GpuState, GpuUse, ProcessIdentity

KEPT_AWAKE_SECONDS = 120.0
"""Cards suspend 5 to 15 s after the last program has let go of them, and gpuwhyd lets an idle one go after 60 s."""
KEPT_BUSY_SECONDS = 20.0
SAME_TIME_SECONDS = 10.0
"""A card that worked so long before its watchers came works for something else."""
ALONE_SECONDS = 30.0
"""A card that is let alone for so long and stays awake is kept so by something else than gpuwhyd."""
MOST_PART = 0.15
"""Watching makes a card draw no more above idle than this part of its limit: it leaves P8 for it. More is hidden work."""
COMM_LENGTH = 15
"""The kernel keeps so many characters of a program's name (TASK_COMM_LEN)."""

_WATCHERS = {
    "all-smi": "github.com/inureyes/all-smi",
    "amd-smi": "github.com/ROCm/amdsmi",
    "amd_smi_exporter": "github.com/amd/amd_smi_exporter",
    "amdgpu_top": "github.com/Umio-Yasuno/amdgpu_top",
    "btm": "github.com/ClementTsang/bottom",
    "btop": "github.com/aristocratos/btop",
    "coolercontrold": "gitlab.com/coolercontrol/coolercontrol",
    "corectrl": "gitlab.com/corectrl/corectrl",
    "corectrl_helper": "gitlab.com/corectrl/corectrl",
    "dcgm-exporter": "github.com/NVIDIA/dcgm-exporter",
    "dcgmi": "github.com/NVIDIA/DCGM",
    "glances": "github.com/nicolargo/glances",
    "gpustat": "github.com/wookayin/gpustat",
    "gwe": "gitlab.com/leinardi/gwe",
    "intel_gpu_top": "gitlab.freedesktop.org/drm/igt-gpu-tools",
    "lact": "github.com/ilya-zlobintsev/LACT",
    "mangoapp": "github.com/flightlessmango/MangoHud",
    "nv-hostengine": "github.com/NVIDIA/DCGM",
    "nvidia-settings": "github.com/NVIDIA/nvidia-settings",
    "nvidia-smi": "docs.nvidia.com/deploy/nvidia-smi",
    "nvidia_gpu_exporter": "github.com/utkuozdemir/nvidia_gpu_exporter",
    "nvitop": "github.com/XuehaiPan/nvitop",
    "nvitop-exporter": "github.com/XuehaiPan/nvitop",
    "nvtop": "github.com/Syllo/nvtop",
    "psensor": "gitlab.com/jeanfi/psensor",
    "radeontop": "github.com/clbr/radeontop",
    "rocm-smi": "github.com/ROCm/rocm_smi_lib",
    "telegraf": "github.com/influxdata/telegraf",
}
"""Programs that ask cards how they do, or set their fans and clocks, and do no work on them: name and origin."""
_NAMES = frozenset(name[:COMM_LENGTH] for name in _WATCHERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A card that only watchers use."""

    by: tuple[ProcessIdentity, ...]
    """Empty: nobody but gpuwhyd itself."""
    for_seconds: float
    busy: bool
    """They make it work; otherwise it is merely awake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sorted:
    """Who of those that have the card open only watches."""

    uses: Sequence[GpuUse] = ()
    watching: tuple[ProcessIdentity, ...] = ()
    others_compute: bool = False
    """Others have it open for more than drawing a desktop."""
    worked_on: bool = False
    """Others work on it."""


@dataclass(slots=True)
class Watchers:
    """Feed it every reading of a card, also those that say that it sleeps or is let go."""

    _sorted: _Sorted = _Sorted()
    _by: tuple[ProcessIdentity, ...] = ()
    _others: bool = True
    """Somebody else has the card open, or nobody knows."""
    _nobody: bool = False
    """No process at all has."""
    _by_since: float | None = None
    _idle_since: float | None = None
    """Since when the card is awake and nobody works on it."""
    _busy_since: float | None = None
    _alone_since: float | None = None
    _stays_awake_alone: bool = False

    def feed(self, now: float, reading: GpuReading, uses: Sequence[GpuUse], *, heat: Heat) -> None:
        """One reading, after `heat` has seen it."""
        if reading.state in {GpuState.ASLEEP, GpuState.LOST}:
            self.interrupted()
            self._stays_awake_alone = False
            return
        self._follow_alone(now, reading)
        if not are_the_same(uses, self._sorted.uses):
            self._sorted = _sorted(uses)
        if reading.state is GpuState.AWAKE or reading.processes is not None:
            self._look(now, reading)
        worked_on = self._sorted.worked_on
        if reading.state is not GpuState.AWAKE:
            if worked_on:
                self._idle_since = self._busy_since = None
            return
        used = (reading.utilization_percent or 0.0) > IDLE_UTILIZATION_PERCENT
        busy = heat.is_working or used
        idle = heat.floor.is_at_floor and not busy and not worked_on
        self._idle_since = _since(self._idle_since, now) if idle else None
        theirs = busy and not worked_on and heat.excess_watts <= MOST_PART * heat.floor.scale_watts
        self._busy_since = _since(self._busy_since, now) if theirs else None

    def interrupted(self) -> None:
        """A gap or a suspend: what must hold without a break starts anew."""
        self._by, self._others = (), True
        self._by_since = self._idle_since = self._busy_since = self._alone_since = None

    def watched(self, now: float, reading: GpuReading) -> Watched | None:
        """Whether only watchers keep the card awake or busy, for long enough."""
        if self._others:
            return None
        if self._busy_since is not None and self._by and self._by_since is not None:
            seconds = now - max(self._busy_since, self._by_since)
            theirs = self._by_since - self._busy_since <= SAME_TIME_SECONDS
            return (
                Watched(by=self._by, for_seconds=seconds, busy=True)
                if theirs and seconds >= KEPT_BUSY_SECONDS
                else None
            )
        if reading.can_suspend is not True or self._idle_since is None:
            return None
        seconds = now - self._idle_since
        if seconds < KEPT_AWAKE_SECONDS:
            return None
        held_by_us = self._nobody and reading.state is GpuState.AWAKE and not self._stays_awake_alone
        if not self._by and not held_by_us:
            return None
        return Watched(by=self._by, for_seconds=seconds, busy=False)

    def _look(self, now: float, reading: GpuReading) -> None:
        """Who has the card open. A desktop that has it open and draws nothing does not keep it awake."""
        by = self._sorted.watching
        self._others = reading.processes is None or self._sorted.others_compute
        if not self._others:
            named = {use.process.pid for use in self._sorted.uses}
            self._others = any(process.pid not in named for process in reading.processes or ())
        self._nobody = reading.processes == ()
        self._by_since = _since(self._by_since, now) if by else None
        self._by = by

    def _follow_alone(self, now: float, reading: GpuReading) -> None:
        if reading.state is GpuState.AWAKE:
            self._alone_since = None
            return
        self._alone_since = _since(self._alone_since, now)
        if now - self._alone_since >= ALONE_SECONDS:
            self._stays_awake_alone = True


def _sorted(uses: Sequence[GpuUse]) -> _Sorted:
    watching = [use for use in uses if use.use.kind == HOLDER or use.process.name[:COMM_LENGTH] in _NAMES]
    others = uses
    if watching:
        watching = [use for use in watching if _only_watches(use)]
        others = [use for use in uses if not _only_watches(use)]
    return _Sorted(
        uses=uses,
        watching=tuple([use.process for use in watching]),
        others_compute=any(other.use.kind != "graphics" for other in others),
        worked_on=any(engine_weight(other.use) for other in others),
    )


def _only_watches(use: GpuUse) -> bool:
    holds_only = use.use.kind == HOLDER and not engine_weight(use.use)
    return holds_only or use.process.name[:COMM_LENGTH] in _NAMES


def _since(since: float | None, now: float) -> float:
    return now if since is None else since
