"""The binary gpu_metrics in every revision: each number is found where the kernel's own declaration puts it."""

import pytest

from gpuwhyd.backends.amdgpu_metrics import GpuMetrics, parse, reasons_between, throttle_reasons
from tests.backends.amdgpu_metrics_tables import KINDS, has, table
from tests.samples import SAMPLES

APUS = [kind for kind in KINDS if kind[0] >= 2]
CARDS = [kind for kind in KINDS if kind[0] == 1]


def name_of(kind):
    return f"{kind[0]}.{kind[1]}{kind[2]}"


def kinds_with(field, among=KINDS):
    return pytest.mark.parametrize("kind", [kind for kind in among if has(kind, field)], ids=name_of)


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_a_table_that_measures_nothing_gives_nothing(kind):
    metrics = parse(table(*kind))
    assert metrics is not None
    assert metrics == GpuMetrics(
        throttle_counters=tuple((name, None) for name, _ in metrics.throttle_counters)
    )


@kinds_with("temperature_hotspot")
def test_temperatures_of_cards_are_in_degrees(kind):
    metrics = parse(table(*kind, temperature_hotspot=78, temperature_mem=70))
    assert (metrics.hotspot_celsius, metrics.memory_celsius, metrics.edge_celsius) == (78.0, 70.0, None)


@kinds_with("temperature_edge")
def test_the_edge_temperature(kind):
    assert parse(table(*kind, temperature_edge=61)).edge_celsius == 61.0


@kinds_with("temperature_gfx")
def test_temperatures_of_processors_graphics_are_in_hundredths(kind):
    assert parse(table(*kind, temperature_gfx=5612)).edge_celsius == 56.12


@kinds_with("indep_throttle_status")
def test_the_drivers_own_throttle_bits(kind):
    assert parse(table(*kind, indep_throttle_status=1 << 47)).throttle_bits == 1 << 47
    assert parse(table(*kind, indep_throttle_status=0)).throttle_bits == 0


@kinds_with("throttle_status")
def test_bits_that_depend_on_the_chip_are_not_guessed_at(kind):
    assert parse(table(*kind, throttle_status=6)).throttle_bits is None


@kinds_with("energy_accumulator", [kind for kind in CARDS if kind[1] >= 4])
def test_energy_is_counted_in_fractions_of_a_joule(kind):
    assert parse(table(*kind, energy_accumulator=5 << 15)).energy_joules == 2.5


@kinds_with("energy_accumulator", [kind for kind in CARDS if kind[1] < 4])
def test_a_counter_of_unknown_unit_is_no_energy(kind):
    assert parse(table(*kind, energy_accumulator=5 << 15)).energy_joules is None


@kinds_with("average_mm_activity", CARDS)
def test_the_video_engines_of_cards(kind):
    assert parse(table(*kind, average_mm_activity=37)).media_busy_percent == 37.0


@kinds_with("vcn_activity")
def test_the_busiest_of_several_video_engines(kind):
    assert parse(table(*kind, vcn_activity=(3, 0, 81, 0xFFFF))).media_busy_percent == 81.0


def test_the_video_engines_of_processors_graphics():
    assert parse(table(2, 4, average_mm_activity=3750)).media_busy_percent == 37.5
    assert parse(table(3, 0, average_vcn_activity=37)).media_busy_percent == 37.0


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("prochot", "hw-thermal"),
        ("ppt", "power-cap"),
        ("socket_thm", "sw-thermal"),
        ("vr_thm", "hw-thermal"),
        ("hbm_thm", "sw-thermal"),
    ],
)
@kinds_with("ppt_residency_acc")
def test_counters_that_rise_tell_what_held(kind, field, reason):
    names = ("prochot", "ppt", "socket_thm", "vr_thm", "hbm_thm")
    counters = {f"{name}_residency_acc": 100 for name in names}
    before = parse(table(*kind, **counters))
    after = parse(table(*kind, **counters | {f"{field}_residency_acc": 101}))
    assert reasons_between(before, after) == (reason,)
    assert reasons_between(after, after) == ()


@pytest.mark.parametrize(
    ("steps", "violated", "reasons"),
    [
        (2000, 19, ()),
        (2000, 20, ("power-cap",)),
        (2000, 2000, ("power-cap",)),
        (2000, 2001, None),
        (0, 0, None),
        (-500, 10, None),
    ],
    ids=["seldom", "1 %", "always", "faster than its steps", "stands still", "started anew"],
)
@kinds_with("accumulation_counter")
def test_limits_are_counted_against_the_steps_of_the_firmware(kind, steps, violated, reasons):
    before = parse(table(*kind, accumulation_counter=1000, ppt_residency_acc=100))
    after = parse(table(*kind, accumulation_counter=1000 + steps, ppt_residency_acc=100 + violated))
    assert reasons_between(before, after) == reasons


@pytest.mark.parametrize(
    ("field", "reasons"),
    [
        ("prochot", ("hw-thermal",)),
        ("spl", ("power-cap",)),
        ("fppt", ("power-cap",)),
        ("sppt", ("power-cap",)),
        ("thm_gfx", ("sw-thermal",)),
        ("thm_soc", ("sw-thermal",)),
        ("thm_core", ()),
    ],
)
def test_counters_of_processors_graphics(field, reasons):
    names = ("prochot", "spl", "fppt", "sppt", "thm_core", "thm_gfx", "thm_soc")
    counters = {f"throttle_residency_{name}": 100 for name in names}
    before = parse(table(3, 0, **counters))
    after = parse(table(3, 0, **counters | {f"throttle_residency_{field}": 7}))
    assert reasons_between(before, after) == reasons


def test_between_tables_that_do_not_count_nothing_is_known():
    assert reasons_between(parse(table(1, 3)), parse(table(1, 3))) is None
    assert reasons_between(parse(table(1, 7)), parse(table(1, 7))) is None


@pytest.mark.parametrize(
    ("bits", "reasons"),
    [
        ([], ()),
        *[([bit], ("power-cap",)) for bit in (*range(8), 56)],
        *[([bit], ("current-limit",)) for bit in (16, 17, 18, 19, 20, 22, 23)],
        *[([bit], ("sw-thermal",)) for bit in (32, *range(34, 44))],
        *[([bit], ("hw-thermal",)) for bit in range(44, 48)],
        ([57], ("reliability",)),
        ([21], ()),  # the processor's own current
        ([33], ()),  # the processor's own temperature
        ([60], ()),
        ([1, 3, 36, 47], ("power-cap", "sw-thermal", "hw-thermal")),
    ],
)
def test_bits_have_the_generic_names(bits, reasons):
    assert throttle_reasons(sum(1 << bit for bit in bits)) == reasons


def test_a_contradicted_bit_does_not_count():
    assert throttle_reasons(1 << 36 | 1, contradicted=1 << 36) == ("power-cap",)


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_a_table_cut_short_is_none(kind):
    whole = table(*kind)
    for length in {0, 1, 3, 4, 5, len(whole) // 2, len(whole) - 1}:
        assert parse(whole[:length]) is None
    assert parse(whole + b"\0" * 16) == parse(whole)


@pytest.mark.parametrize(
    "header", [(120, 1, 4), (96, 1, 3), (288, 1, 3), (32, 1, 9), (120, 9, 3), (0, 0, 0), (0xFFFF, 0xFF, 0xFF)]
)
def test_revisions_and_sizes_that_do_not_belong_together_are_none(header):
    size, format_revision, content_revision = header
    assert (
        parse(size.to_bytes(2, "little") + bytes([format_revision, content_revision]) + b"\0" * 8000) is None
    )


def test_zero_degrees_is_a_sensor_that_is_not_there():
    assert parse(table(1, 3, temperature_mem=0)).memory_celsius is None


def test_the_tables_of_real_cards():
    if SAMPLES is None:
        pytest.skip("the samples are not here")
    rx9070 = parse((SAMPLES / "sysfs/amd/rx9070/card1/device/gpu_metrics").read_bytes())
    assert (rx9070.edge_celsius, rx9070.hotspot_celsius, rx9070.memory_celsius) == (48.0, 52.0, 72.0)
    assert (rx9070.throttle_bits, rx9070.energy_joules, rx9070.media_busy_percent) == (0, None, 0.0)
    laptop = parse((SAMPLES / "sysfs/amd/rx7600s/card1/device/gpu_metrics").read_bytes())
    assert (laptop.edge_celsius, laptop.hotspot_celsius, laptop.memory_celsius) == (53.0, 54.0, 60.0)
    assert laptop.throttle_bits == 1 << 36
