"""The engine on logs of real cards, where they lie beside the project: they are other people's and not part of it."""

import csv
from pathlib import Path

import pytest

from gpuwhyd.model import Cause, FanMode, FanReading
from tests.engine.rig import Rig, unit

RISE_PERCENT = 8.0
LATE_SAMPLES = 2
RECORDINGS = Path(__file__).parents[2].parent / "shared" / "recordings"
NAMES = sorted(path.stem for path in RECORDINGS.glob("*.csv"))
GAME = unit("game.service", 5)


def number(text: str) -> float | None:
    return float(text) if text else None


def replay(name: str) -> tuple[Rig, list[tuple[float, float]]]:
    """The card of a recording, used by one program as much as the log says the card was; and its (seconds, fan percent)."""
    rig = Rig(limit=None)
    start = rig.now
    samples = []
    with (RECORDINGS / f"{name}.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            fan = FanReading(index=0, percent=number(row["fan_percent"]), rpm=number(row["fan_rpm"]))
            busy = number(row["util_percent"])
            samples.append((float(row["time_s"]), fan.percent or 0.0))
            rig.tick(
                {GAME: busy},
                step=start + float(row["time_s"]) - rig.now,
                fans=(fan,),
                mode=FanMode.UNKNOWN,
                watts=number(row["power_w"]),
                celsius=number(row["temp_c"]),
                busy=busy,
            )
    return rig, samples


def swings(name: str) -> list[tuple[float, float]]:
    """(onset, low) of each upward swing that a person sees in the plot."""
    with (RECORDINGS / "SPIKES.tsv").open(newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        return [(float(row["onset_s"]), float(row["low"])) for row in rows if row["name"] == name]


@pytest.mark.parametrize("name", NAMES or ["none here"])
def test_each_swing_of_a_real_fan_is_in_one_spike_none_is_late_and_none_invented(name: str) -> None:
    if not NAMES:
        print(f"no recordings at {RECORDINGS}: nothing was checked")
        return
    rig, samples = replay(name)
    start = 1000.0
    spikes = [
        (event.spike.began_boottime_seconds - start, event)
        for event in rig.spikes
        if event.kind.value == "spike-started"
    ]
    ends = {
        event.spike.spike_id: event.spike.ended_boottime_seconds - start
        for event in rig.spikes
        if event.spike.ended_boottime_seconds is not None
    }
    seen = swings(name)
    for began, event in spikes:
        end = ends.get(event.spike.spike_id, float("inf"))
        assert any(began - 60 <= onset <= end for onset, _ in seen), f"invented at {began}"
    for onset, low in seen:
        up = next(
            i for i, (at, percent) in enumerate(samples) if at >= onset and percent >= low + RISE_PERCENT
        )
        latest, _ = samples[min(up + LATE_SAMPLES, len(samples) - 1)]
        covered = [b for b, e in spikes if onset <= ends.get(e.spike.spike_id, float("inf")) and b <= latest]
        assert len(covered) == 1, f"swing at {onset}, told until {latest}, is in {len(covered)} spikes"
    for _, event in spikes:
        assert event.explanation.cause in {Cause.WORKLOAD, Cause.RESIDUAL_HEAT}
        assert event.explanation.suspects[0].program.name == "game.service"


def test_a_real_fan_fixed_at_full_speed_is_pinned() -> None:
    if not NAMES:
        print(f"no recordings at {RECORDINGS}: nothing was checked")
        return
    rig, _ = replay("kx-rtx2060s-fixed100")
    assert rig.answer.cause is Cause.MANUAL_FAN
    assert rig.spikes == []
