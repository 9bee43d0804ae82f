"""Where Intel's two kernel drivers keep what they tell of a card: the names of files, looked up without reading one.

`i915` (Documentation/ABI/testing/sysfs-driver-intel-i915-hwmon, and drm/cardN) and `xe` (sysfs-driver-intel-xe-hwmon,
and tileN/gtN). A GT is a block of engines with one clock: the first one renders and computes, a second one on newer
chips is for video. Listing directories and reading labels wakes no card; reading anything else here may.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from gpuwhyd.backends.hwmon import channels, chip_directory, labels
from gpuwhyd.backends.pci import names_in

_CARD = re.compile(r"card([0-9]+)")
_GT = re.compile(r"gt([0-9]+)")
_TILE = re.compile(r"tile([0-9]+)")
_I915_REASON = re.compile(r"throttle_reason_(.+)")
_XE_REASON = re.compile(r"reason_(.+)")

_REASONS = {
    "pl1": "power-cap",  # sustained, burst and peak power limit
    "pl2": "power-cap",
    "pl4": "power-cap",
    "vr_tdc": "board-limit",  # the voltage regulator's current over time
    "thermal": "sw-thermal",  # the card's firmware steers its clock to stay below its limit
    "ratl": "sw-thermal",  # the same by a running average
    "soc_thermal": "sw-thermal",
    "mem_thermal": "sw-thermal",
    "prochot": "hw-thermal",  # a wire says too hot, and clocks drop at once
    "vr_thermalert": "hw-thermal",
}
"""The drivers' names -> the words that all backends share (nvml_card.py). What heat does through firmware, gradually,
is `sw-thermal`; what it does through a wire is `hw-thermal`. A reason that is not here keeps its own name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gt:
    """The files of one GT, below the card's directory. Which of them exist depends on kernel and card."""

    clock: str
    """What it runs at now, MHz; 0 while it rests."""
    clock_maximum: str
    """RP0: the most that the hardware can do, not what a user allows it."""
    clock_minimum: str
    """RPn."""
    resting: str
    """Milliseconds in RC6, in which a GT is that has nothing to do."""
    is_throttled: str
    reasons: tuple[tuple[str, str], ...]
    """(file, generic name) of what may hold the clock down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What one card has; a name that is `None` or empty is not there."""

    chip: str | None
    """Its hwmon chip. Integrated graphics have none."""
    gts: tuple[Gt, ...] = ()
    fans: tuple[tuple[int, str], ...] = ()
    """(index from 0, file)."""
    temperature: str | None = None
    memory_temperature: str | None = None
    temperature_limits: tuple[str, ...] = ()
    energies: tuple[str, ...] = ()
    """The whole card's counter first, then its package's: some cards have the first one and it stays 0."""
    power_limits: tuple[str, ...] = ()
    """The sustained limit of the card, its burst limit, the package's, and at last what the maker rates it for."""

    @property
    def sensors(self) -> tuple[str, ...]:
        """Those of its chip that are read each time."""
        fans = (file for _, file in self.fans)
        named = (self.temperature, self.memory_temperature, *self.energies, *fans)
        return tuple(file for file in named if file is not None)

    def without_fans(self) -> "Layout":
        return replace(self, fans=())


def layout_of(driver: str, device: str) -> Layout:
    """Of the card whose sysfs directory is `device`. Its hwmon chip's number is another one after each driver load."""
    gts = tuple(_i915_gts(device) if driver == "i915" else _xe_gts(device))
    directory = chip_directory(device, driver)
    if directory is None:
        return Layout(chip=None, gts=gts)
    chip = directory.removeprefix(f"{device}/")
    names = frozenset(names_in(directory))

    def there(files: Iterable[str]) -> tuple[str, ...]:
        return tuple(f"{chip}/{file}" for file in files if file in names)

    temperatures = labels(directory, "temp")
    package = temperatures.get("pkg") or min(
        set(channels(directory, "temp")) - set(temperatures.values()), default=None
    )
    memory = temperatures.get("vram")
    powers = _card_first(directory, "power")
    return Layout(
        chip=chip,
        gts=gts,
        fans=tuple(
            (number - 1, f"{chip}/fan{number}_input")
            for number in channels(directory, "fan")
            if f"fan{number}_input" in names
        ),
        temperature=next(iter(there([f"temp{package}_input"])), None),
        memory_temperature=next(iter(there([f"temp{memory}_input"])), None),
        temperature_limits=there([f"temp{package}_max", f"temp{package}_crit"]),
        energies=there(f"energy{number}_input" for number in _card_first(directory, "energy")),
        power_limits=there(
            [f"power{number}_{kind}" for number in powers for kind in ("max", "cap")]
            + [f"power{number}_rated_max" for number in powers]
        ),
    )


def _card_first(directory: str, kind: str) -> list[int]:
    """Channels of the whole card, then unlabelled ones, then those of a part of it."""
    named = {number: label for label, number in labels(directory, kind).items()}
    ranks = {"card": 0, "": 1, "pkg": 2}
    return sorted(channels(directory, kind), key=lambda number: (ranks.get(named.get(number, ""), 3), number))


def _i915_gts(device: str) -> Iterable[Gt]:
    for card in _numbered(f"{device}/drm", _CARD):
        here = f"drm/{card}"
        gts = [f"{here}/gt/{gt}" for gt in _numbered(f"{device}/{here}/gt", _GT)]
        for gt in gts:
            yield Gt(
                clock=f"{gt}/rps_act_freq_mhz",
                clock_maximum=f"{gt}/rps_RP0_freq_mhz",
                clock_minimum=f"{gt}/rps_RPn_freq_mhz",
                resting=f"{gt}/rc6_residency_ms",
                is_throttled=f"{gt}/throttle_reason_status",
                reasons=_reasons(device, gt, _I915_REASON),
            )
        if not gts:  # before Linux 5.18
            yield Gt(
                clock=f"{here}/gt_act_freq_mhz",
                clock_maximum=f"{here}/gt_RP0_freq_mhz",
                clock_minimum=f"{here}/gt_RPn_freq_mhz",
                resting=f"{here}/power/rc6_residency_ms",
                is_throttled=f"{here}/throttle_reason_status",
                reasons=(),
            )


def _xe_gts(device: str) -> Iterable[Gt]:
    for tile in _numbered(device, _TILE):
        for name in _numbered(f"{device}/{tile}", _GT):
            gt = f"{tile}/{name}"
            yield Gt(
                clock=f"{gt}/freq0/act_freq",
                clock_maximum=f"{gt}/freq0/rp0_freq",
                clock_minimum=f"{gt}/freq0/rpn_freq",
                resting=f"{gt}/gtidle/idle_residency_ms",
                is_throttled=f"{gt}/freq0/throttle/status",
                reasons=_reasons(device, f"{gt}/freq0/throttle", _XE_REASON),
            )


def _reasons(device: str, directory: str, pattern: re.Pattern[str]) -> tuple[tuple[str, str], ...]:
    found = (
        match for name in sorted(names_in(f"{device}/{directory}")) if (match := pattern.fullmatch(name))
    )
    return tuple(
        (f"{directory}/{match[0]}", _REASONS.get(match[1], match[1].replace("_", "-")))
        for match in found
        if match[1] != "status"
    )


def _numbered(directory: str, pattern: re.Pattern[str]) -> list[str]:
    """Names in a directory such as gt0, gt1, gt10, in the order of their numbers."""
    found = [match for name in names_in(directory) if (match := pattern.fullmatch(name))]
    return [match[0] for match in sorted(found, key=lambda match: int(match[1]))]
