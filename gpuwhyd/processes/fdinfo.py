"""What /proc/PID/fdinfo/N says of a DRM client: an open device node of a GPU.

The format is the kernel's Documentation/gpu/drm-usage-stats.rst. Which engines and regions there are is each driver's
own business; amdgpu of Linux 5.14 to 5.18 had a format of its own. Pure, and never raises: anything may stand in it.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_WHO = re.compile(rb"^(drm-driver|drm-pdev|drm-client-id):[ \t]*(\S+)[ \t]*$", re.MULTILINE)
_WHAT = re.compile(
    rb"^drm-(engine-capacity|engine|total-cycles|cycles|maxfreq|resident|memory|total)-([^:\n]+):"
    rb"[ \t]*([0-9]{1,20})(?:[ \t]+([A-Za-z]+))?[ \t]*$",
    re.MULTILINE,
)
"""Read each tick for each client: two searches cost less than taking each line apart. A 64-bit number has
up to 20 digits."""
_NUMBER = re.compile(r"[0-9]{1,20}")
_ADDRESS = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])", re.IGNORECASE)
"""A PCI address; the first amdgpu to tell one left out the domain."""

_FLAGS = re.compile(rb"^flags:[ \t]*([0-7]{1,22})[ \t]*$", re.MULTILINE)
"""In octal, as proc_pid_fdinfo(5) has it."""

_OLD_AMDGPU_WHO = re.compile(rb"^(pdev|pasid):[ \t]*(\S+)[ \t]*$", re.MULTILINE)
_OLD_AMDGPU_QUEUE = re.compile(
    rb"^([a-z]+(?:_1)?)[0-9]{1,3}:[ \t]*([0-9]{1,6})\.([0-9]{1,2}) ?%[ \t]*$", re.MULTILINE
)
_OLD_AMDGPU_MEMORY = re.compile(rb"^([a-z]+) mem:[ \t]*([0-9]{1,20}) kB[ \t]*$", re.MULTILINE)

_BYTES = {b"": 1, b"KiB": 1 << 10, b"MiB": 1 << 20, b"GiB": 1 << 30}
_UNITS: dict[bytes, dict[bytes, int]] = {
    b"engine": {b"ns": 1},
    b"engine-capacity": {b"": 1},
    b"cycles": {b"": 1},
    b"total-cycles": {b"": 1},
    b"maxfreq": {b"": 1, b"Hz": 1, b"KHz": 1_000, b"MHz": 1_000_000, b"GHz": 1_000_000_000},
    b"resident": _BYTES,
    b"memory": _BYTES,
    b"total": _BYTES,
}

GRAPHICS_ENGINES = frozenset({"gfx", "render", "rcs", "fragment", "vertex-tiler", "gpu", "panthor"})
COMPUTE_ENGINES = frozenset({"compute", "ccs", "csd"})
MAIN_ENGINES = GRAPHICS_ENGINES | COMPUTE_ENGINES
"""Those that draw most of a card's power; a card may have both kinds, working side by side."""
ENCODER_ENGINES = frozenset({"enc", "enc_1"})
"""amdgpu's. Since VCN 4 (RDNA 3) one queue does both and its decoding shows here too: nothing tells them apart."""
DECODER_ENGINES = frozenset({"dec", "jpeg", "video", "vcs"})
"""Intel's `video` (i915) and `vcs` (xe) do both; playing is far more common than recording, so they count here."""

_LEAVES_OUT_IDLE_ENGINES = frozenset({"amdgpu"})
"""Drivers that do not mention engines which never worked: no engine at all means that none did."""
_ON_THE_CARD = ("vram", "local")
"""How regions of a card's own memory begin: amdgpu `vram`, xe `vram0`, i915 `local0`."""
_IN_THE_MACHINE = ("system", "gtt", "memory")
"""Memory that an integrated GPU works in: xe and i915 `system0`, `gtt`; others `memory`."""
_SIZES = (b"resident", b"memory", b"total")
"""Best first. `drm-memory-` is amdgpu's old name for resident; `total` is also what was only asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Work of one engine (or a group of alike ones) for one client; counters since the client was opened."""

    busy_nanoseconds: int | None = None
    cycles: int | None = None
    total_cycles: int | None = None
    """A clock that runs at the rate of `cycles`."""
    max_frequency_hertz: int | None = None
    capacity: int = 1
    """How many alike engines there are: the busy time of all of them is summed."""
    percent: float | None = None
    """The old amdgpu format has no counter but this, over a time of the driver's own choice."""

    @property
    def has_worked(self) -> bool:
        return bool(self.busy_nanoseconds or self.cycles or self.percent)


@dataclass(frozen=True, slots=True, kw_only=True)
class FdInfo:
    """One DRM client. The same client shows on several descriptors, also of several processes."""

    driver: str
    pci_address: str | None = None
    """`0000:03:00.0`; None for a device that is not on a PCI bus."""
    client_id: int | None = None
    """Unique for the driver, or for the device."""
    engines: Mapping[str, Engine] = field(default_factory=dict)
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    """By region."""

    @property
    def leaves_out_idle_engines(self) -> bool:
        """An engine that is not mentioned has never worked; else it does not exist, or is not counted."""
        return self.driver in _LEAVES_OUT_IDLE_ENGINES

    @property
    def tells_engines(self) -> bool:
        """Whether the driver says how much its engines worked; False: it cannot, or not for this card."""
        return bool(self.engines) or self.leaves_out_idle_engines

    @property
    def memory_used_bytes(self) -> int | None:
        """Of the card's own memory; where it has none, of the machine's. None when the driver does not say."""
        for where in (_ON_THE_CARD, _IN_THE_MACHINE):
            sizes = [size for region, size in self.memory_bytes.items() if region.startswith(where)]
            if sizes:
                return sum(sizes)
        return None


def parse(raw: bytes) -> FdInfo | None:
    """None when this is no DRM client's: another file, or a driver that says nothing at all."""
    who = {key: value.decode("ascii", "replace") for key, value in _WHO.findall(raw)}
    driver = who.get(b"drm-driver")
    if driver is None:
        return _old_amdgpu(raw)
    parts: dict[bytes, dict[bytes, int]] = {}
    sizes: dict[bytes, dict[bytes, int]] = {}
    for kind, name, number, unit in _WHAT.findall(raw):
        factor = _UNITS[kind].get(unit)
        if factor is not None:
            table = sizes if kind in _SIZES else parts
            table.setdefault(name, {})[kind] = int(number) * factor
    return FdInfo(
        driver=driver,
        pci_address=_pci_address(who.get(b"drm-pdev")),
        client_id=_whole_number(who.get(b"drm-client-id")),
        engines={
            name.decode("ascii", "replace"): _engine(said)
            for name, said in parts.items()
            if b"engine" in said or b"cycles" in said
        },
        memory_bytes={
            name.decode("ascii", "replace"): next(said[kind] for kind in _SIZES if kind in said)
            for name, said in sizes.items()
        },
    )


def is_path_only(raw: bytes) -> bool:
    """Opened with O_PATH, which names a file and opens nothing: its driver has never heard of it, and it takes no rights."""
    flags = _FLAGS.search(raw)
    return flags is not None and bool(int(flags[1], 8) & os.O_PATH)


def _engine(said: Mapping[bytes, int]) -> Engine:
    return Engine(
        busy_nanoseconds=said.get(b"engine"),
        cycles=said.get(b"cycles"),
        total_cycles=said.get(b"total-cycles"),
        max_frequency_hertz=said.get(b"maxfreq") or None,
        capacity=said.get(b"engine-capacity") or 1,  # zero is not allowed
    )


def _old_amdgpu(raw: bytes) -> FdInfo | None:
    """`pdev:`, `pasid:`, `vram mem: 2068 kB`, `gfx0: 12.34%` for each queue that worked lately (amdgpu_fdinfo.c).

    The driver prints hundredths without a leading zero, so that `12.5%` is 12.05.
    """
    who = {key: value.decode("ascii", "replace") for key, value in _OLD_AMDGPU_WHO.findall(raw)}
    if len(who) < 2:
        return None
    percents: dict[str, float] = {}
    for queue, whole, hundredths in _OLD_AMDGPU_QUEUE.findall(raw):
        name = queue.decode()
        percents[name] = percents.get(name, 0.0) + int(whole) + int(hundredths) / 100
    return FdInfo(
        driver="amdgpu",
        pci_address=_pci_address(who[b"pdev"]),
        client_id=_whole_number(who[b"pasid"]),
        engines={name: Engine(percent=percent) for name, percent in percents.items()},
        memory_bytes={name.decode(): int(size) << 10 for name, size in _OLD_AMDGPU_MEMORY.findall(raw)},
    )


def _whole_number(text: str | None) -> int | None:
    return int(text) if text is not None and _NUMBER.fullmatch(text) else None


def _pci_address(text: str | None) -> str | None:
    found = _ADDRESS.fullmatch(text or "")
    return f"{found[1] or '0000'}:{found[2]}".lower() if found else None
