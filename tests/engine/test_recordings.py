"""The engine on logs of real cards, where they lie beside the project: they are other people's and not part of it."""

import csv
from pathlib import Path

import pytest

from gpuwhyd.model import Cause, FanMode, FanReading
from tests.engine.rig import Rig, unit

RECORDINGS = Path(__file__).parents[2].parent / "shared" / "recordings"
NAMES = sorted(path.stem for path in RECORDINGS.glob("*.csv"))
GAME = unit("game.service", 5)


def number(text: str) -> float | None:
    return float(text) if text else None


def replay(name: str) -> Rig:
    """The card of a recording, used by one program as much as the log says the card was."""
    rig = Rig(limit=None)
    start = rig.now
    with (RECORDINGS / f"{name}.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            fan = FanReading(index=0, percent=number(row["fan_percent"]), rpm=number(row["fan_rpm"]))
            busy = number(row["util_percent"])
            rig.tick(
                {GAME: busy},
                step=start + float(row["time_s"]) - rig.now,
                fans=(fan,),
                mode=FanMode.UNKNOWN,
                watts=number(row["power_w"]),
                celsius=number(row["temp_c"]),
                busy=busy,
            )
    return rig


def swings(name: str) -> list[tuple[float, float]]:
    """(onset, low) of each upward swing that a person sees in the plot."""
    with (RECORDINGS / "SPIKES.tsv").open(newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        return [(float(row["onset_s"]), float(row["low"])) for row in rows if row["name"] == name]


@pytest.mark.parametrize("name", NAMES or ["none here"])
def test_each_swing_of_a_real_fan_is_in_one_spike_and_no_spike_is_invented(name: str) -> None:
    if not NAMES:
        print(f"no recordings at {RECORDINGS}: nothing was checked")
        return
    rig = replay(name)
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
    for onset, _ in seen:
        # from the first move of a slow fan to eight points above rest takes up to half a minute
        covered = [
            b for b, e in spikes if b <= onset + 35 and onset <= ends.get(e.spike.spike_id, float("inf"))
        ]
        assert len(covered) == 1, f"swing at {onset} is in {len(covered)} spikes"
    for _, event in spikes:
        assert event.explanation.cause in {Cause.WORKLOAD, Cause.RESIDUAL_HEAT}
        assert event.explanation.suspects[0].program.name == "game.service"


def test_a_real_fan_fixed_at_full_speed_is_pinned() -> None:
    if not NAMES:
        print(f"no recordings at {RECORDINGS}: nothing was checked")
        return
    rig = replay("kx-rtx2060s-fixed100")
    assert rig.answer.cause is Cause.MANUAL_FAN
    assert rig.spikes == []
