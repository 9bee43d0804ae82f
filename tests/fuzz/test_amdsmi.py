"""What AMD's library, its wrapper, the trial's process and the loader's cache may say: anything at all."""

import json
import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.backends.amdsmi_library import verdict
from gpuwhyd.backends.amdsmi_places import LIBRARY, Place, find
from gpuwhyd.backends.amdsmi_processes import Entry, ProcessWork, without_strangers
from gpuwhyd.backends.amdsmi_throttling import COUNTERS, REASONS, Violations
from gpuwhyd.backends.amdsmi_versions import misfit, of_library, of_wrapper
from gpuwhyd.errors import BackendError, BackendUnavailableError
from gpuwhyd.model import GpuState
from tests.backends.amdsmi_rig import AmdsmiRig
from tests.fake_amdsmi.control import COUNTERS as FAKE_COUNTERS
from tests.fake_amdsmi.control import FakeProcess, Fault
from tests.fuzz.mutation import examples

PLACE = Place(library=Path("/opt/rocm/lib") / LIBRARY, wrapper=Path("/wrapper"), is_rocms=False)
WORDS = st.tuples(*[st.integers(0, 2**32 - 1) | st.integers(0, 40)] * 4)
NEAR_EDGES = st.sampled_from([0, 1, 2**16 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1])
U64 = st.integers(0, 2**64 - 1) | NEAR_EDGES
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
ANSWERS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("failed", "error", "code", "version", "library"), VALUES)
)


def is_one_line(text: str) -> bool:
    return text.isprintable() and len(text) < 600


@given(st.binary(max_size=300) | ANSWERS.map(lambda answer: json.dumps(answer).encode()))
def test_whatever_the_trial_tells_is_a_verdict_in_one_line(told: bytes) -> None:
    said = verdict(told, PLACE)
    assert said is None or is_one_line(said)


@given(WORDS, st.text(max_size=20) | st.from_regex(r"\d{1,3}\.\d{1,3}(\.\d{1,3})?", fullmatch=True))
def test_only_equal_known_versions_fit(words: tuple[int, ...], version: str) -> None:
    fits = misfit(version, words) is None
    assert fits == (of_library(words) is not None and of_library(words) == of_wrapper(version))


@given(st.lists(st.binary(max_size=40) | st.just(b"/no/such/libamd_smi.so\0"), max_size=6))
def test_any_loader_cache_can_be_searched(pieces: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "etc").mkdir()
        (Path(folder) / "etc/ld.so.cache").write_bytes(b"\0".join(pieces))
        with pytest.raises(BackendUnavailableError, match="not installed"):
            find({}, Path(folder), None)


ENTRIES = st.lists(
    st.builds(
        Entry,
        pid=st.integers(0, 5) | st.integers(0, 2**32 - 1),
        graphics_ns=U64,
        encoder_ns=U64,
        memory_bytes=U64,
        occupied_units=st.none() | st.integers(0, 2**32 - 1),
    ),
    max_size=6,
)


@given(st.lists(st.tuples(st.floats(-1.0, 1e6), ENTRIES), max_size=5))
def test_whatever_is_listed_processes_are_told_apart_and_percents_are_percents(
    ticks: list[tuple[float, list[Entry]]],
) -> None:
    work, now = ProcessWork(), 0.0
    for seconds, entries in ticks:
        now += seconds
        processes = work.weigh(entries, own_pid=3, seconds=now)
        pids = [process.pid for process in processes]
        assert pids == sorted({entry.pid for entry in entries} - {0, 3})
        for process in processes:
            assert process.kind in {"compute", "holder"}
            for percent in (process.engine_percent, process.encoder_percent):
                assert percent is None or 0.0 <= percent <= 100.0


@given(st.dictionaries(st.sampled_from("abc"), ENTRIES.map(tuple), max_size=3))
def test_a_process_vanishes_from_a_card_only_when_it_has_something_on_another(
    lists: dict[str, tuple[Entry, ...]],
) -> None:
    kept = without_strangers(lists)
    everywhere = {entry.pid for entries in lists.values() for entry in entries}
    assert {entry.pid for entries in kept.values() for entry in entries} == everywhere


@given(st.lists(st.dictionaries(st.sampled_from(COUNTERS), U64), max_size=5))
def test_any_counters_give_known_reasons_or_none(readings: list[dict[str, int]]) -> None:
    violations = Violations()
    for counters in readings:
        reasons = violations.reasons(counters)
        assert reasons is None or (
            set(reasons) <= set(REASONS.values()) and len(set(reasons)) == len(reasons)
        )


SENSOR = st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(1, 60).map(Fault)


@examples(40)
@given(
    celsius=st.tuples(SENSOR, SENSOR, SENSOR),
    energy=st.tuples(U64, st.floats(width=32)),
    activity=st.integers(0, 2**32 - 1),
    counters=st.lists(U64, min_size=len(FAKE_COUNTERS), max_size=len(FAKE_COUNTERS)),
    pids=st.lists(st.integers(0, 2**32 - 1), max_size=4),
    refusal=st.sampled_from([0, 0, 1, 2, 3, 8, 9, 10, 15, 30, 31, 32, 34, 41, 55, 2**32 - 1]),
)
def test_whatever_the_library_answers_a_reading_is_plausible_or_an_error_in_one_line(
    celsius, energy, activity, counters, pids, refusal
) -> None:
    with tempfile.TemporaryDirectory() as folder, AmdsmiRig(Path(folder)) as rig:
        edge, hotspot, memory = celsius
        card = rig.add_card(edge=edge, hotspot=hotspot, memory=memory, activity=activity)
        card.set_energy(*energy)
        card.set_counters(**dict(zip(FAKE_COUNTERS, counters, strict=True)))
        card.set_processes(*(FakeProcess(pid=pid) for pid in pids))
        card.fail("amdsmi_get_gpu_process_list", refusal)
        for _ in range(2):
            said, reading = "", None
            try:
                reading = rig.reading()
            except BackendError as error:
                said = str(error)
            assert is_one_line(said)
            if reading is None:
                return
            assert reading.state in {GpuState.AWAKE, GpuState.LOST}
            for value in (
                reading.temperature_celsius,
                reading.hotspot_celsius,
                reading.memory_temperature_celsius,
            ):
                assert value is None or -50.0 <= value <= 200.0
            assert reading.energy_joules is None or 0.0 < reading.energy_joules <= 1e13
            assert reading.energy_joules is None or math.isfinite(reading.energy_joules)
            assert len(rig.backend.sources()) == 6
