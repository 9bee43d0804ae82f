"""Which hwmon chips turn the fans of a machine, which of those fans cool a GPU, and what each chip gets wrong. Pure.

Chips, their labels and `pwmN_enable`: Documentation/hwmon/*.rst, Documentation/admin-guide/laptops/thinkpad-acpi.rst and
the drivers below drivers/hwmon and drivers/platform in Linux 6.12. A chip that is in no table counts too: what its fans
are for is told by their labels, and by whether the machine is one that a person carries.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from gpuwhyd.model import FanMode


@dataclass(frozen=True, slots=True, kw_only=True)
class FanRule:
    """What the user says of one fan: a `[[fan]]` table of the configuration."""

    chip: str
    """The chip's name, as class/hwmon/hwmon*/name has it."""
    fan: int | str
    """Its number, or the label that its driver gives it."""
    gpu: str
    """The id of the GPU that it cools, SHARED or IGNORE."""
    name: str | None = None
    """What the user calls it."""


SHARED = "shared"
IGNORE = "ignore"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipKind:
    """What is known of the chips that are called so."""

    names: str
    """A regular expression for the whole name."""
    is_laptop: bool = False
    """Only laptops and handhelds have it, whatever their DMI says: handhelds often call themselves a desktop."""
    least_seconds: float = 0.0
    """It is not read more often than this."""
    zero: FanMode = FanMode.MANUAL
    """What `pwmN_enable` 0 means: by the kernel's rules that nobody regulates the fan and it runs at full speed."""
    stale_seconds: float = 0.0
    """For so long after it was set to full speed its tachometer may show what was before."""
    has_top_speed: bool = False
    """`fanN_max` is the fan's top speed. By the kernel's rules it is a limit for an alarm."""


KINDS: tuple[ChipKind, ...] = (
    ChipKind(names="thinkpad", is_laptop=True, stale_seconds=120.0),
    ChipKind(names="asus"),
    ChipKind(names="hp"),
    ChipKind(names="acer", is_laptop=True),
    ChipKind(names="alienware_wmi"),
    # Each read is a call into the BIOS, during which the machine stands still; some take 500 ms (dell-smm-hwmon.rst).
    ChipKind(names="dell_smm", least_seconds=5.0, has_top_speed=True),
    ChipKind(names="dell_ddv", least_seconds=5.0),
    ChipKind(names="applesmc|macsmc_hwmon", has_top_speed=True),
    ChipKind(
        names="msi_wmi_platform|samsung_galaxybook|legion_hwmon|lenovo_wmi_other|yogafan", is_laptop=True
    ),
    ChipKind(names="system76|system76_acpi|uniwill|tuxedo.*", is_laptop=True),
    # The older driver (drivers/hwmon/oxp-sensors.c) shows the EC's own register; with the rules came the other name.
    ChipKind(names="oxpec", is_laptop=True, zero=FanMode.AUTO),
    ChipKind(names="oxp.*", is_laptop=True),
    ChipKind(names="gpd_?fan|ayaneo.*|ayn.*|steamdeck_hwmon|surface_fan", is_laptop=True),
    ChipKind(names="cros_ec"),
    ChipKind(names="hp_wmi_sensors"),
    ChipKind(names="(?!acpi_fan$).*"),
    # The same fan once more, as the firmware's tables describe it.
    ChipKind(names="acpi_fan"),
)
"""The better one first. Several chips of one laptop often show the same fans: only the best one is read."""

GPU_DRIVERS = re.compile(r"amdgpu|radeon|nouveau|nova.*|nvidia.*|i915(_.*)?|xe(_.*)?")
"""Chips that are a GPU's own: nothing but their name is ever looked at, because more could wake the card."""

_GPU = re.compile(r"(?<![a-z])(d?gpu|video|graphics?|vga)(?![a-z])")
_CPU = re.compile(r"(?<![a-z])(cpu|apu|processor)(?![a-z])")
_ELSEWHERE = re.compile(
    r"(?<![a-z])(psu|power supply|ps|pump|dock(ing)?|hdd|odd|optical|ssd|pch|chipset)(?![a-z])"
)


class Cools(StrEnum):
    GPU = "gpu"
    CPU = "cpu"
    BOTH = "both"
    ELSE = "else"


def cools(label: str | None) -> Cools:
    """What a fan is for, by its driver's label; one that says nothing cools the machine as a whole."""
    words = (label or "").lower().replace("_", " ")
    if _ELSEWHERE.search(words):
        return Cools.ELSE
    gpu, cpu = _GPU.search(words), _CPU.search(words)
    if gpu and not cpu:
        return Cools.GPU
    return Cools.CPU if cpu and not gpu else Cools.BOTH


def rank(chip: str) -> int:
    """Place of the chip's kind in KINDS."""
    return next(place for place, kind in enumerate(KINDS) if re.fullmatch(kind.names, chip, re.DOTALL))


def kind_of_chip(chip: str) -> ChipKind:
    return KINDS[rank(chip)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipFans:
    """One chip as it is found: its directory below class/hwmon, its name, and label by number of its fans."""

    directory: str
    name: str
    fans: Mapping[int, str | None]
    is_attached: bool = False
    """It hangs on USB: a fan hub, a power supply, a dock. It is the machine's only if the user says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose reading a fan goes to: a GPU's by its id, or one `chassis_NAME` of its own."""

    id: str
    is_gpu: bool
    name: str | None = None
    """What the user calls it."""
    cools_gpu: bool = False
    """Its fans are labelled for a GPU, and there is none that they could belong to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedFan:
    directory: str
    number: int
    label: str
    owner: Owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which fans are read for whom. `complaints` are lines for a person about what the user wrote."""

    fans: tuple[PlacedFan, ...] = ()
    complaints: tuple[str, ...] = ()


def plan(
    chips: Sequence[ChipFans],
    *,
    is_portable: bool,
    discrete_gpus: Sequence[str],
    present_gpus: Sequence[str],
    rules: Sequence[FanRule],
) -> Plan:
    """Which of the fans are a GPU's or shared, and whose.

    `discrete_gpus` are the ids of the GPUs that are built into the machine and are no part of its CPU. A portable machine's
    have no fan of their own, a desktop's are cards that have one; so only a portable's one and only gets a labelled fan.
    """
    placed: list[PlacedFan] = []
    unused, complaints = set(rules), []
    for chip in chips:
        for number, label in chip.fans.items():
            rule = _rule_for(chip, number, label, rules)
            if rule is None:
                continue
            unused.discard(rule)
            if rule.gpu == IGNORE:
                continue
            if rule.gpu != SHARED and rule.gpu not in present_gpus:
                complaints.append(f"fan {rule.fan} of {rule.chip} is {rule.gpu}'s, which is not there")
                continue
            owner = (
                Owner(id=chassis_id(chip.name), is_gpu=False, name=rule.name)
                if rule.gpu == SHARED
                else Owner(id=rule.gpu, is_gpu=True)
            )
            placed.append(_placed(chip, number, rule.name or label, owner))
    complaints += [f"there is no fan {rule.fan} on a chip {rule.chip}" for rule in rules if rule in unused]
    placed += _by_themselves(chips, is_portable, discrete_gpus, rules)
    return Plan(fans=tuple(_named_alike(placed)), complaints=tuple(complaints))


def _by_themselves(
    chips: Sequence[ChipFans], is_portable: bool, discrete_gpus: Sequence[str], rules: Sequence[FanRule]
) -> list[PlacedFan]:
    """The fans that tell themselves what they are, of the best chip that has any."""
    for chip in sorted(chips, key=lambda chip: (rank(chip.name), chip.name, chip.directory)):
        if chip.is_attached:
            continue
        portable = is_portable or kind_of_chip(chip.name).is_laptop
        what = {number: cools(label) for number, label in chip.fans.items()}
        has_gpu_fan = Cools.GPU in what.values()
        wanted = {Cools.GPU}
        if portable:
            # With a fan for the GPU beside it, one for the CPU is the CPU's; alone it is all that the machine has.
            wanted |= {Cools.BOTH} if has_gpu_fan else {Cools.BOTH, Cools.CPU}
        mine = [number for number in what if what[number] in wanted]
        if not mine:
            continue
        gpu = Owner(id=discrete_gpus[0], is_gpu=True) if portable and len(discrete_gpus) == 1 else None
        own = Owner(id=chassis_id(chip.name), is_gpu=False, cools_gpu=gpu is None and has_gpu_fan)
        return [
            _placed(chip, number, chip.fans[number], gpu if gpu and what[number] is Cools.GPU else own)
            for number in mine
            if _rule_for(chip, number, chip.fans[number], rules) is None
        ]
    return []


def _placed(chip: ChipFans, number: int, label: str | None, owner: Owner) -> PlacedFan:
    return PlacedFan(directory=chip.directory, number=number, label=label or f"fan{number}", owner=owner)


def _named_alike(placed: Sequence[PlacedFan]) -> list[PlacedFan]:
    """One owner for each id: fans of one chip may be given to it by the user and by themselves."""
    owners: dict[str, Owner] = {}
    for fan in placed:
        known = owners.setdefault(fan.owner.id, fan.owner)
        if known.name is None and fan.owner.name is not None:
            owners[fan.owner.id] = fan.owner
    return [replace(fan, owner=owners[fan.owner.id]) for fan in placed]


def _rule_for(chip: ChipFans, number: int, label: str | None, rules: Sequence[FanRule]) -> FanRule | None:
    """The user's word on this fan. A number says more than a label, which several fans may share."""
    of_chip = [rule for rule in rules if rule.chip == chip.name]
    by_label = (
        rule
        for rule in of_chip
        if isinstance(rule.fan, str) and label is not None and rule.fan.strip().lower() == label.lower()
    )
    return next((rule for rule in of_chip if rule.fan == number), None) or next(by_label, None)


def chassis_id(chip: str) -> str:
    """Of at most 64 letters, digits and underlines after `chassis_`, as a D-Bus path takes them."""
    return "chassis_" + (re.sub(r"[^A-Za-z0-9_]", "_", chip)[:64] or "fan")


def mode_of(kind: ChipKind, file: str, value: float | None) -> FanMode:
    """Who regulates a fan, by the value of the file that says so.

    `pwmN_enable`: 0 full speed, 1 manual, 2 and above ways of regulating (Documentation/hwmon/sysfs-interface.rst);
    Apple's `fanN_manual`: 1 manual, 0 not.
    """
    if value is None or value < 0:
        return FanMode.UNKNOWN
    if file.endswith("_manual"):
        return {0: FanMode.AUTO, 1: FanMode.MANUAL}.get(int(value), FanMode.UNKNOWN)
    if value == 0:
        return kind.zero
    return FanMode.MANUAL if value == 1 else FanMode.AUTO
