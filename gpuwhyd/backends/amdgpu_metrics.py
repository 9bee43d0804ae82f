"""The binary table `gpu_metrics` of amdgpu: why clocks are held down, and what no other file tells. Pure.

The layouts are those of `struct gpu_metrics_v*` in drivers/gpu/drm/amd/include/kgd_pp_interface.h, in C's natural
alignment: a header of size, format and content revision, then numbers. All bits set says that the card has no such
number. A revision is not always an extension of the one before, and 1.6 was laid out anew without a new number; so a
table is read only where revision and size are both known. 1.9 describes itself, attribute by attribute, and is not read.
"""

import struct
from dataclasses import dataclass

from gpuwhyd.backends.plausible import JOULES

_HEADER = struct.Struct("<HBB")

EDGE_BIT = 1 << 35
HOTSPOT_BIT = 1 << 36
MEMORY_BIT = 1 << 34
POWER_BITS = 0xFF | 1 << 56
"""Of the driver's throttler bits: the package limits PPT0 to SPPT_APU, and PPM."""
_REASONS = (
    (POWER_BITS, "power-cap"),
    (0x00DF_0000, "current-limit"),  # TDC_*, EDC_GFX, APCC
    (0x0000_0FFD_0000_0000, "sw-thermal"),  # TEMP_*
    (0x0000_F000_0000_0000, "hw-thermal"),  # VRHOT*, PROCHOT_*: a wire says so
    (1 << 57, "reliability"),  # FIT
)
"""SMU_THROTTLER_*_BIT of drivers/gpu/drm/amd/pm/swsmu/inc/amdgpu_smu.h. EDC_CPU (21) and TEMP_CORE (33) slow the
processor of an APU, not its graphics, and are left out."""
_JOULES_PER_COUNT = 2.0**-16
"""kgd_pp_interface.h: "15.259uJ (2^-16) units", said from 1.4 on. What the counter of 1.0 to 1.3 counts depends on the
chip, and most of them leave it at 0; it is not read."""

LEAST_SHARE = 0.01
"""Below one percent of the steps a limit does not count as violated, as AMD's library has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuMetrics:
    edge_celsius: float | None = None
    hotspot_celsius: float | None = None
    memory_celsius: float | None = None
    throttle_bits: int | None = None
    """The driver's own bits, alike for all chips; see `throttle_reasons`."""
    throttle_counters: tuple[tuple[str, int | None], ...] = ()
    """Instead of bits: for how long each limit has held so far, in units of the firmware's; see `reasons_between`."""
    throttle_steps: int | None = None
    """So many control steps of the firmware there were so far; those counters count some of them."""
    energy_joules: float | None = None
    media_busy_percent: float | None = None
    """Of the video engines; decoding and encoding are counted as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Where the numbers stand; 0 is where the header is, so: not in this layout."""

    celsius_per_count: float = 1.0
    edge: int = 0
    hotspot: int = 0
    memory: int = 0
    media: tuple[int, ...] = ()
    media_percent_per_count: float = 1.0
    indep_status: int = 0
    energy: int = 0
    counters: tuple[tuple[int, str], ...] = ()
    steps: int = 0


def _since_1_6(first: int) -> tuple[tuple[int, str], ...]:
    """PROCHOT, PPT, socket, voltage regulator and HBM in a row: `*_residency_acc`."""
    names = ("hw-thermal", "power-cap", "sw-thermal", "hw-thermal", "sw-thermal")
    return tuple((first + 4 * number, name) for number, name in enumerate(names))


_V1_1 = _Layout(edge=4, hotspot=6, memory=8, media=(20,))
_V1_4_MEDIA = (16, 18, 20, 22)
_V2_1 = _Layout(celsius_per_count=0.01, edge=4)
_V1_7 = _Layout(hotspot=4, memory=6, energy=24, counters=_since_1_6(44), steps=40)

_LAYOUTS: dict[tuple[int, int, int], _Layout] = {
    (1, 0, 80): _Layout(edge=16, hotspot=18, memory=20, media=(32,)),
    (1, 1, 96): _V1_1,
    (1, 2, 104): _V1_1,
    (1, 3, 120): _Layout(edge=4, hotspot=6, memory=8, media=(20,), indep_status=112),
    (1, 4, 288): _Layout(hotspot=4, memory=6, media=_V1_4_MEDIA, energy=24),
    (1, 5, 360): _Layout(hotspot=4, memory=6, media=_V1_4_MEDIA, energy=88),
    (1, 6, 384): _Layout(
        hotspot=4, memory=6, media=_V1_4_MEDIA, energy=88, counters=_since_1_6(108), steps=104
    ),
    (1, 6, 1664): _Layout(hotspot=4, memory=6, energy=16, counters=_since_1_6(36), steps=32),
    (1, 7, 2208): _V1_7,
    (1, 8, 3360): _V1_7,
    (1, 8, 3872): _V1_7,
    (2, 0, 120): _Layout(celsius_per_count=0.01, edge=16),
    (2, 1, 120): _V2_1,
    (2, 2, 128): _Layout(celsius_per_count=0.01, edge=4, indep_status=120),
    (2, 3, 152): _Layout(celsius_per_count=0.01, edge=4, indep_status=120),
    (2, 4, 168): _Layout(
        celsius_per_count=0.01, edge=4, indep_status=120, media=(30,), media_percent_per_count=0.01
    ),
    (3, 0, 264): _Layout(
        celsius_per_count=0.01,
        edge=4,
        media=(44,),
        counters=(
            (228, "hw-thermal"),  # PROCHOT
            (232, "power-cap"),  # SPL
            (236, "power-cap"),  # fast PPT
            (240, "power-cap"),  # slow PPT
            (
                248,
                "sw-thermal",
            ),  # graphics; that of the processor's cores, at 244, holds none of its clocks down
            (252, "sw-thermal"),  # SoC
        ),
    ),
}
"""By format revision, content revision and size."""


def parse(table: bytes) -> GpuMetrics | None:
    """`None`: not a table, cut short, or of a kind that is not known here."""
    if len(table) < _HEADER.size:
        return None
    size, format_revision, content_revision = _HEADER.unpack_from(table)
    layout = _LAYOUTS.get((format_revision, content_revision, size))
    if layout is None or len(table) < size:
        return None
    status = _number(table, layout.indep_status, 8)
    joules = (_number(table, layout.energy, 8) or 0) * _JOULES_PER_COUNT
    busy = [
        value
        for place in layout.media
        if (value := _scaled(table, place, layout.media_percent_per_count, 100.0)) is not None
    ]
    return GpuMetrics(
        # 0 degC is a sensor that is not there.
        edge_celsius=_scaled(table, layout.edge, layout.celsius_per_count, 200.0) or None,
        hotspot_celsius=_scaled(table, layout.hotspot, layout.celsius_per_count, 200.0) or None,
        memory_celsius=_scaled(table, layout.memory, layout.celsius_per_count, 200.0) or None,
        throttle_bits=status,
        throttle_counters=tuple((name, _number(table, place, 4)) for place, name in layout.counters),
        throttle_steps=_number(table, layout.steps, 4),
        energy_joules=joules if 0 < joules <= JOULES[1] else None,
        media_busy_percent=max(busy, default=None),
    )


def throttle_reasons(bits: int, *, contradicted: int = 0) -> tuple[str, ...]:
    """Generic names of what holds the clocks down.

    `contradicted` are bits that the card's other sensors belie: the firmware of RDNA 3 and 4 sets HOTSPOT all the time,
    at 37 degC of 110 as well (drm/amd issue 3251, ROCm issue 11781).
    """
    bits &= ~contradicted
    return tuple(name for mask, name in _REASONS if bits & mask)


def reasons_between(before: GpuMetrics, after: GpuMetrics) -> tuple[str, ...] | None:
    """What held the clocks down between two readings, where the card counts; `None` where it does not, or when it began
    anew. By the rules of amdsmi_throttling.py, as far as the card counts steps, too.
    """
    pairs = tuple(zip(before.throttle_counters, after.throttle_counters, strict=False))
    known = [(name, now - then) for (name, then), (_, now) in pairs if then is not None and now is not None]
    if not known:
        return None
    if before.throttle_steps is None or after.throttle_steps is None:
        held = {name for name, rise in known if rise}
    else:
        steps = after.throttle_steps - before.throttle_steps
        if steps <= 0 or not all(0 <= rise <= steps for _, rise in known):
            return None
        held = {name for name, rise in known if rise >= LEAST_SHARE * steps}
    return tuple(name for _, name in _REASONS if name in held)


def _number(table: bytes, place: int, width: int) -> int | None:
    if not place:
        return None
    raw = table[place : place + width]
    return None if raw == b"\xff" * width else int.from_bytes(raw, "little")


def _scaled(table: bytes, place: int, scale: float, most: float) -> float | None:
    """A 16-bit number times `scale`, if it is no more than `most`."""
    count = _number(table, place, 2)
    value = None if count is None else round(count * scale, 2)
    return value if value is not None and value <= most else None
