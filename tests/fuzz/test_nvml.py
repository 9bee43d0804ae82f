"""What NVIDIA's driver may answer: any number, any return code, any count, any bytes for a name."""

import contextlib
import dataclasses
import math
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pynvml
from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.backends import plausible
from gpuwhyd.backends.base import BackendReadings
from gpuwhyd.errors import BackendError
from gpuwhyd.model import FanReading, GpuProcess, GpuReading, GpuState
from tests.backends.nvml_rig import OWN_PID, SECOND, NvmlRig
from tests.fake_nvml.control import (
    DESKTOP_CARD,
    INSUFFICIENT_SIZE,
    KINDS,
    SENSORS,
    FakeCard,
    FakeInstance,
    FakeProcess,
    FakeSample,
    Fault,
    _functions,
    now_us,
)
from tests.fuzz.mutation import examples

CODES = st.sampled_from([1, 2, 3, 4, 6, 7, 9, 12, 13, 15, 16, 18, 25, 26, 28, 999, 12345, -1])
COUNTS = st.sampled_from([0, 1, 2, 64, 100, 65_535, 65_536, 65_537, 2**31, 2**32 - 1])
U32 = st.sampled_from([0, 1, 50, 100, 101, 2**31 - 1, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)
U64 = st.sampled_from([2**32, 2**50, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1]) | st.integers(0, 2**64 - 1)
ANSWERS = st.one_of(U32, U64, st.sampled_from([-1, -(2**31)]), st.floats(0, 1e6), st.none(), CODES.map(Fault))
NAMES = st.sampled_from(
    [b"", b"\xff\xfe card", b"a\nb\x1b[2J", b"x" * 95, "\u202eecrof".encode(), b"NVIDIA L4"]
)
PIDS = st.sampled_from([0, 1, 41, 42, 43, OWN_PID, 2**31, 2**32 - 1])
PROCESSES = st.lists(
    st.builds(
        FakeProcess,
        pid=PIDS,
        kind=st.sampled_from(sorted(KINDS)),
        memory_bytes=st.none() | U32 | U64,
        sm=U32,
        mem=U32,
        enc=U32,
        dec=U32,
        instance=st.none() | st.integers(0, 2),
    ),
    max_size=5,
)
STARTED_US = now_us()
SAMPLES = st.lists(
    st.builds(
        FakeSample,
        pid=PIDS,
        time_stamp=st.integers(-10_000_000, 10_000_000).map(lambda late: STARTED_US + late) | U64,
        sm=U32,
        mem=U32,
        enc=U32,
        dec=U32,
    ),
    max_size=8,
)
INSTANCES = st.lists(
    st.none()
    | st.builds(
        FakeInstance, gpu_instance=U32, compute_instance=U32, memory_used_bytes=U64, result=st.just(0) | CODES
    ),
    max_size=3,
)
FUNCTIONS = st.sampled_from(_functions())


def sensor(card: FakeCard, name: str, value: float | Fault | None) -> None:
    card.set(**{name: value})


def fan(card: FakeCard, index: int, name: str, value: float | Fault | None) -> None:
    card.set_fan(index, **{name: value})


def processes(card: FakeCard, listed: list[FakeProcess]) -> None:
    card.set_processes(*listed)


def samples(card: FakeCard, taken: list[FakeSample]) -> None:
    card.set_samples(*taken)


def partition(card: FakeCard, instances: list[FakeInstance | None], aggregate: int, hides: bool) -> None:
    card.partition(*instances, aggregate=aggregate, aggregate_hides_memory=hides)


def name(card: FakeCard, field: str, text: bytes) -> None:
    setattr(card._card, field, text[:31] if field == "vbios" else text)


def refuse(card: FakeCard, function: str, code: int) -> None:
    card.fail(function, code)


def refuse_all(card: FakeCard, function: str, code: int) -> None:
    card._driver.fail(function, code)


def sizing(card: FakeCard, count: int, succeeds: bool) -> None:
    card.set_sizing(count=count, succeeds=succeeds)


def claim(card: FakeCard, count: int) -> None:
    card.claim(count)


DAMAGE = st.one_of(
    st.tuples(st.just(sensor), st.sampled_from(SENSORS), ANSWERS),
    st.tuples(st.just(sensor), st.sampled_from(SENSORS), ANSWERS),
    st.tuples(
        st.just(fan), st.integers(0, 7), st.sampled_from(["percent", "rpm", "target", "policy"]), ANSWERS
    ),
    st.tuples(st.just(processes), PROCESSES),
    st.tuples(st.just(samples), SAMPLES),
    st.tuples(st.just(partition), INSTANCES, st.just(0) | CODES, st.booleans()),
    st.tuples(st.just(name), st.sampled_from(["name", "uuid", "vbios"]), NAMES | st.binary(max_size=95)),
    st.tuples(st.just(refuse), FUNCTIONS, CODES),
    st.tuples(st.just(refuse_all), FUNCTIONS, CODES),
    st.tuples(st.just(sizing), COUNTS, st.booleans()),
    st.tuples(st.just(claim), COUNTS),
)

BOUNDS = {
    "temperature_celsius": plausible.CELSIUS,
    "hotspot_celsius": plausible.CELSIUS,
    "memory_temperature_celsius": plausible.CELSIUS,
    "temperature_limit_celsius": plausible.LIMIT_CELSIUS,
    "power_watts": plausible.WATTS,
    "power_average_watts": plausible.WATTS,
    "power_limit_watts": plausible.WATTS,
    "energy_joules": plausible.JOULES,
    "utilization_percent": plausible.PERCENT,
    "memory_utilization_percent": plausible.PERCENT,
    "engine_percent": plausible.PERCENT,
    "encoder_percent": plausible.PERCENT,
    "decoder_percent": plausible.PERCENT,
    "memory_used_bytes": plausible.BYTES,
    "memory_total_bytes": plausible.BYTES,
    "core_clock_mhz": plausible.MEGAHERTZ,
    "core_clock_max_mhz": plausible.MEGAHERTZ,
    "memory_clock_mhz": plausible.MEGAHERTZ,
    "memory_clock_max_mhz": plausible.MEGAHERTZ,
    "performance_state": (0, 15),
    "percent": plausible.FAN_PERCENT,
    "target_percent": plausible.FAN_PERCENT,
    "rpm": plausible.RPM,
    "rpm_max": plausible.RPM,
    "index": (0, 15),
    "pid": (0, 2**32 - 1),
}


def assert_plausible(of: GpuReading | FanReading | GpuProcess) -> None:
    """Every number is bounded here, so that one that is added must be too."""
    for field in dataclasses.fields(of):
        value = getattr(of, field.name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            low, high = BOUNDS[field.name]
            assert math.isfinite(value), field.name
            assert low <= value <= high, (field.name, value)
        elif isinstance(value, str):
            assert value.isprintable(), field.name


def assert_all_plausible(read: BackendReadings) -> None:
    for reading in read.readings:
        assert_plausible(reading)
        for part in (*reading.fans, *(reading.processes or ())):
            assert_plausible(part)
        pids = [process.pid for process in reading.processes or ()]
        assert pids == sorted(set(pids) - {OWN_PID})
        for field in dataclasses.fields(reading.gpu):
            text = getattr(reading.gpu, field.name)
            assert text is None or (text.isprintable() and text.strip()), (field.name, text)
        if reading.memory_used_bytes is not None:
            assert reading.memory_used_bytes <= (reading.memory_total_bytes or 0)
        assert all(reason.isprintable() for reason in reading.throttle_reasons or ())


@contextlib.contextmanager
def rig_of_two() -> Iterator[NvmlRig]:
    with tempfile.TemporaryDirectory() as folder, NvmlRig(Path(folder)) as rig:
        rig.add_card()
        rig.add_card(SECOND)
        try:
            yield rig
        finally:
            mend(rig)
            rig.backend.close()
            # A shutdown that was refused as `uninitialised` leaves a session of which the backend cannot know.
            with contextlib.suppress(pynvml.NVMLError):
                while True:
                    pynvml.nvmlShutdown()


def mend(rig: NvmlRig) -> None:
    for function in rig.driver.functions:
        rig.driver.fail(function, 0)
    for number, card in enumerate(rig.driver.cards):
        for function in rig.driver.functions:
            card.fail(function, 0)
        card.set(**{**dict.fromkeys(SENSORS), **DESKTOP_CARD})
        for index in range(8):
            card.set_fan(index, percent=30, rpm=1000, target=30, policy=0)
        card.partition()
        card.set(mig_mode=None)
        card.set_processes()
        card.set_samples()
        card.set_sizing()
        card.claim(0)
        card.rename(name="NVIDIA GeForce RTX 3070", uuid=f"GPU-{number}", vbios="94.04")


def read_or_close(rig: NvmlRig, seconds: float) -> BackendReadings | None:
    """As the sampler does it."""
    read, said = None, ""
    try:
        read = rig.read(seconds)
    except BackendError as error:
        said = str(error)
        rig.backend.close()
        rig.backend.probe()
    assert said.isprintable()
    rig.backend.sources()
    return read


@examples(150)
@given(st.lists(st.tuples(st.integers(0, 1), DAMAGE), min_size=1, max_size=8), st.booleans())
def test_whatever_the_driver_answers_a_reading_is_plausible_and_right_again_once_it_is_mended(
    damage: list[tuple[int, tuple[object, ...]]], from_the_start: bool
) -> None:
    with rig_of_two() as rig:
        mend(rig)
        if not from_the_start:
            rig.read()
        for number, (what, *arguments) in damage:
            what(rig.driver.cards[number], *arguments)
        for seconds in (2, 2, 61):
            read = read_or_close(rig, seconds)
            if read is not None:
                assert len(read.readings) == 2
                assert_all_plausible(read)
        mend(rig)
        for reading in rig.read(700).readings:
            assert (reading.state, reading.temperature_celsius, reading.power_watts) == (
                GpuState.AWAKE,
                35.0,
                21.5,
            )
            assert [(fan.percent, fan.rpm) for fan in reading.fans] == [(30.0, 1000.0)]
            assert (reading.memory_used_bytes, reading.utilization_percent) == (512 << 20, 0.0)
            assert reading.processes == ()
        rig.backend.close()
        for number, reading in enumerate(rig.read().readings):
            assert (reading.gpu.name, reading.gpu.uuid) == ("NVIDIA GeForce RTX 3070", f"GPU-{number}")
            assert (reading.core_clock_max_mhz, reading.temperature_limit_celsius) == (2100.0, 95.0)


LISTS = [function for function in _functions() if "RunningProcesses" in function]
MOST_BYTES = 16 << 20


@examples(25)
@given(
    COUNTS,
    COUNTS,
    st.sampled_from([None, *LISTS, "nvmlDeviceGetProcessUtilization"]),
    st.none() | INSTANCES,
)
def test_however_much_the_driver_claims_to_have_memory_does_not_grow(
    claimed: int, sized: int, too_small: str | None, instances: list[FakeInstance | None] | None
) -> None:
    with rig_of_two() as rig:
        card = rig.driver.cards[0]
        if instances is not None:
            card.partition(*instances)
        read_or_close(rig, 2)
        card.claim(claimed)
        card.set_sizing(count=sized)
        if too_small is not None:
            card.fail(too_small, INSUFFICIENT_SIZE)
        tracemalloc.start()
        try:
            for _ in range(12):
                read_or_close(rig, 2)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < MOST_BYTES
