"""The files of amdgpu, damaged: each parser gives what can be true or None, and a card a reading or a BackendError."""

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.backends.amdgpu_chip import highest_mhz
from gpuwhyd.backends.amdgpu_fan_control import curve_of, value_of
from gpuwhyd.backends.amdgpu_metrics import parse, reasons_between, throttle_reasons
from gpuwhyd.backends.sysfs import Attributes
from gpuwhyd.errors import BackendError
from gpuwhyd.model import GpuReading, Lack
from tests.backends.amdgpu_metrics_tables import KINDS, table
from tests.backends.amdgpu_rig import CHIP, DEVICE, Rig
from tests.fuzz.mutation import damaged_bytes, damaged_text, examples

LEVELS = [
    "0: 500Mhz \n1: 2605Mhz *\n2: 2700Mhz ",
    "S: 500Mhz\n1: 789Mhz *\n2: 2070Mhz",
    "0: 2.5GT/s, x16 250Mhz \n1: 16.0GT/s, x16 1143Mhz *",
    "",
]
CONTROLS = [
    "OD_FAN_CURVE:\n0: 40C 25%\n1: 50C 40%\n2: 60C 60%\nOD_RANGE:\nFAN_CURVE(hotspot temp): 25C 100C",
    "OD_FAN_CURVE:\n0: 0C 0%\n1: 0C 0%\nOD_RANGE:\nFAN_CURVE(fan speed): 15% 100%",
    "FAN_TARGET_TEMPERATURE:\n83\nOD_RANGE:\nTARGET_TEMPERATURE: 25 105",
]
TABLES = [table(*kind) for kind in KINDS] + [bytes(2000)]
HOSTILE = st.one_of(
    st.binary(max_size=200),
    st.sampled_from(
        [b"", b"\n", b"\0" * 5000, b"9" * 5000, b"-1", b"\xff" * 64, b"nan", b"1e9", b"\xd9\xa3", b"0x41"]
    ),
    st.integers(-(2**65), 2**65).map(lambda number: b"%d\n" % number),
)
NUMBERS = ("edge_celsius", "hotspot_celsius", "memory_celsius")


@examples(300)
@given(damaged_text(LEVELS, pieces=["Mhz", "*", ": ", "9" * 50, "S:"]))
def test_any_list_of_levels_gives_a_clock_or_none(text: str) -> None:
    highest = highest_mhz(text)
    assert highest is None or 0 < highest <= 100_000
    assert highest is None or str(int(highest)) in text


@examples(300)
@given(damaged_text(CONTROLS, pieces=["OD_RANGE:", "C ", "%", "999", "0: 0C 0%", "\n"]))
def test_any_fan_control_gives_values_that_can_be(text: str) -> None:
    points = curve_of(text)
    assert all(0 <= point.fan_percent <= 100 and 0 <= point.temperature_celsius <= 150 for point in points)
    assert [p.temperature_celsius for p in points] == sorted(p.temperature_celsius for p in points)
    value = value_of(text, 25, 105)
    assert value is None or (25 <= value <= 105 and str(value) in text)


@examples(400)
@given(damaged_bytes(TABLES, pieces=[b"\0" * 8, b"\xff" * 8, b"\x78\0\x01\x03"], most=8))
def test_any_table_gives_what_can_be_or_none(raw: bytes) -> None:
    metrics = parse(raw)
    if metrics is None:
        return
    for name in NUMBERS:
        value = getattr(metrics, name)
        assert value is None or 0 < value <= 200
    assert metrics.media_busy_percent is None or 0 <= metrics.media_busy_percent <= 100
    assert metrics.energy_joules is None or 0 < metrics.energy_joules <= 1e13
    if metrics.throttle_bits is not None:
        reasons = throttle_reasons(metrics.throttle_bits)
        assert len(set(reasons)) == len(reasons)
    assert reasons_between(metrics, metrics) in (None, ())


@examples(200)
@given(HOSTILE, st.floats(-1e6, 1e6), st.floats(0, 1e6), st.sampled_from([1.0, 1e-3, 1e-6]))
def test_any_attribute_is_a_number_in_its_bounds_or_none_with_its_lack(
    content: bytes, low: float, span: float, scale: float
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "x").write_bytes(content)
        files = Attributes(folder)
        value = files.number("x", low, low + span, scale=scale)
        assert (value is None) == (files.lacks["x"] is Lack.UNREADABLE)
        assert value is None or low <= value <= low + span
        assert files.text("x") is None or "\0" not in files.text("x")


FILES = [
    *((name, False) for name in DEVICE if not name.startswith("power/")),
    *((name, True) for name in CHIP),
    *((name, False) for name in ("gpu_metrics", "product_name", "unique_id", "vcn_busy_percent",
                                 "gpu_od/fan_ctrl/fan_curve", "gpu_od/fan_ctrl/fan_minimum_pwm")),
    *((name, True) for name in ("fan1_enable", "power1_input", "pwm2", "fan99_input", "temp9_label")),
]  # fmt: skip
BOUNDS = {
    "temperature_celsius": (-50, 200),
    "hotspot_celsius": (-50, 200),
    "power_watts": (0.001, 10_000),
    "power_limit_watts": (0.001, 10_000),
    "utilization_percent": (0, 100),
    "memory_used_bytes": (0, 2**50),
    "core_clock_mhz": (0, 100_000),
    "fan_rpm": (0, 30_000),
    "fan_percent": (0, 100),
}


def plausible(reading: GpuReading) -> None:
    for name, (low, high) in BOUNDS.items():
        value = getattr(reading, name)
        assert value is None or low <= value <= high, (name, value)
    for field in dataclasses.fields(reading.gpu):
        text = getattr(reading.gpu, field.name)
        assert text is None or text.isprintable()
    for fan in reading.fans:
        assert fan.percent is not None or fan.rpm is not None


@cache
def rig() -> Rig:
    """One for all examples, which put back what they damaged: making its files takes longer than reading them."""
    return Rig(Path(tempfile.mkdtemp()))


@pytest.fixture(scope="module", autouse=True)
def _no_rig_is_left() -> Iterator[None]:
    yield
    shutil.rmtree(rig().tmp_path)
    rig.cache_clear()


@examples(150)
@given(st.lists(st.tuples(st.sampled_from(FILES), HOSTILE), min_size=1, max_size=6))
def test_a_card_with_any_files_gives_a_plausible_reading_or_an_error(
    damage: list[tuple[tuple[str, bool], bytes]],
) -> None:
    card = rig().card
    for (name, of_chip), content in damage:
        (card.set_chip if of_chip else card.set)(**{name: content})
    try:
        rig().backend = rig().new_backend()
        for seconds in (2, 2, 61):
            with suppress(BackendError):  # nothing else may come
                plausible(rig().reading(seconds))
        assert all(source.quantity for source in rig().backend.sources())
    finally:
        for name, of_chip in {file for file, _ in damage}:
            put, whole = (card.set_chip, CHIP.get(name)) if of_chip else (card.set, DEVICE.get(name))
            put(**{name: whole})
