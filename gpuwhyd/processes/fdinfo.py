"""What /proc/PID/fdinfo/N says of a DRM client: an open device node of a GPU.

The format is the kernel's Documentation/gpu/drm-usage-stats.rst. Which engines and regions there are is each driver's
own business; amdgpu of Linux 5.14 to 5.18 had a format of its own. Pure, and never raises: anything may stand in it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_NUMBER = re.compile(r"([0-9]{1,20})(?:[ \t]+([A-Za-z]+))?")
"""A 64-bit number has up to 20 digits."""
_ADDRESS = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])", re.IGNORECASE)
"""A PCI address; the first amdgpu to tell one left out the domain."""
_BYTES = {None: 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "kB": 1 << 10}
_HERTZ = {None: 1, "Hz": 1, "KHz": 1_000, "MHz": 1_000_000, "GHz": 1_000_000_000}
_OLD_AMDGPU_ENGINE = re.compile(r"([a-z]+(?:_1)?)[0-9]{1,3}")
_OLD_AMDGPU_PERCENT = re.compile(r"([0-9]{1,6})\.([0-9]{1,2})[ ]?%")

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
_SIZES = ("resident", "memory", "total")
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
    fields: dict[str, str] = {}
    for line in raw.decode("ascii", "replace").split("\n"):
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key, value.strip())
    if driver := fields.get("drm-driver"):
        return _client(driver, fields)
    if "pdev" in fields and "pasid" in fields:
        return _old_amdgpu(fields)
    return None


def _client(driver: str, fields: Mapping[str, str]) -> FdInfo:
    parts: dict[str, dict[str, int]] = {}
    sizes: dict[str, dict[str, int]] = {}
    for key, value in fields.items():
        if not key.startswith("drm-"):
            continue
        if key.startswith("drm-engine-capacity-"):
            _put(parts, key[20:], "capacity", _quantity(value, {None: 1}))
        elif key.startswith("drm-engine-"):
            _put(parts, key[11:], "busy_nanoseconds", _quantity(value, {"ns": 1}))
        elif key.startswith("drm-cycles-"):
            _put(parts, key[11:], "cycles", _quantity(value, {None: 1}))
        elif key.startswith("drm-total-cycles-"):
            _put(parts, key[17:], "total_cycles", _quantity(value, {None: 1}))
        elif key.startswith("drm-maxfreq-"):
            _put(parts, key[12:], "max_frequency_hertz", _quantity(value, _HERTZ))
        else:
            kind, _, region = key[4:].partition("-")
            if kind in _SIZES:
                _put(sizes, region, kind, _quantity(value, _BYTES))
    return FdInfo(
        driver=driver,
        pci_address=_pci_address(fields.get("drm-pdev")),
        client_id=_quantity(fields.get("drm-client-id", ""), {None: 1}),
        engines={
            name: _engine(said)
            for name, said in parts.items()
            if "busy_nanoseconds" in said or "cycles" in said
        },
        memory_bytes={
            region: next(said[kind] for kind in _SIZES if kind in said) for region, said in sizes.items()
        },
    )


def _engine(said: Mapping[str, int]) -> Engine:
    return Engine(
        busy_nanoseconds=said.get("busy_nanoseconds"),
        cycles=said.get("cycles"),
        total_cycles=said.get("total_cycles"),
        max_frequency_hertz=said.get("max_frequency_hertz") or None,
        capacity=said.get("capacity") or 1,  # zero is not allowed
    )


def _old_amdgpu(fields: Mapping[str, str]) -> FdInfo:
    """`pdev:`, `pasid:`, `vram mem: 2068 kB`, `gfx0: 12.34%` for each queue that worked lately (amdgpu_fdinfo.c).

    The driver prints hundredths without a leading zero, so that `12.5%` is 12.05.
    """
    engines: dict[str, float] = {}
    memory: dict[str, int] = {}
    for key, value in fields.items():
        if (queue := _OLD_AMDGPU_ENGINE.fullmatch(key)) and (percent := _OLD_AMDGPU_PERCENT.fullmatch(value)):
            engines[queue[1]] = engines.get(queue[1], 0.0) + int(percent[1]) + int(percent[2]) / 100
        elif key.endswith(" mem") and (size := _quantity(value, _BYTES)) is not None:
            memory[key.removesuffix(" mem")] = size
    return FdInfo(
        driver="amdgpu",
        pci_address=_pci_address(fields["pdev"]),
        client_id=_quantity(fields["pasid"], {None: 1}),
        engines={name: Engine(percent=percent) for name, percent in engines.items()},
        memory_bytes=memory,
    )


def _put(table: dict[str, dict[str, int]], name: str, kind: str, value: int | None) -> None:
    if value is not None:
        table.setdefault(name, {})[kind] = value


def _quantity(text: str, units: Mapping[str | None, int]) -> int | None:
    """A number with one of these units (None: without one)."""
    found = _NUMBER.fullmatch(text)
    if found is None or found[2] not in units:
        return None
    return int(found[1]) * units[found[2]]


def _pci_address(text: str | None) -> str | None:
    found = _ADDRESS.fullmatch(text or "")
    return f"{found[1] or '0000'}:{found[2]}".lower() if found else None
