"""Logs of other tools become recordings that replay takes."""

import subprocess
import sys
from pathlib import Path

import pytest

from gpuwhyd.model import FanMode, Snapshot
from gpuwhyd.recording.reader import snapshots
from tests.samples import SAMPLES

SCRIPTS = Path(__file__).parents[2] / "script"

SMI_LOG = """\
timestamp, index, name, fan.speed [%], temperature.gpu, power.draw [W], utilization.gpu [%], memory.used [MiB], pstate
2026/07/03 08:33:38.500, 0, NVIDIA RTX 3070, 30 %, 41, 15.50 W, 0 %, 512 MiB, P8
2026/07/03 08:33:38.510, 1, NVIDIA L40S, [N/A], 35, 30.00 W, 3 %, 0 MiB, P0
2026/07/03 08:33:40.500, 0, NVIDIA RTX 3070, 57 %, 70, 212.10 W, 98 %, 6000 MiB, P2
2026/07/03 08:33:40.511, 1, NVIDIA L40S, [N/A], 36, [N/A], [Unknown Error], 0 MiB, P0
"""
FAN_LOG = """\
time_s,fan_percent,fan_rpm,temp_c,hotspot_c,power_w,util_percent,mem_util_percent,mem_used_mib
0,30,1000,40,45.5,15,0,1,512
1.5,31,,50,,200,98,,
"""


def converted(script: str, log: Path, *options: str) -> list[Snapshot]:
    command = [sys.executable, str(SCRIPTS / script), str(log), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(snapshots(done.stdout.splitlines(keepends=True), "converted"))


def test_a_log_of_nvidia_smi(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text(SMI_LOG)
    first, second = converted("convert_nvidia_smi_csv.py", log)
    assert second.boottime_seconds - first.boottime_seconds == 2
    desktop, passive = second.readings
    assert (desktop.gpu.name, desktop.fan_percent, desktop.temperature_celsius) == ("NVIDIA RTX 3070", 57, 70)
    assert (desktop.power_watts, desktop.utilization_percent) == (212.1, 98)
    assert (desktop.memory_used_bytes, desktop.performance_state) == (6000 << 20, 2)
    assert passive.fan_mode is FanMode.NONE
    assert (passive.power_watts, passive.utilization_percent, passive.processes) == (None, None, None)


def test_a_fan_log(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text(FAN_LOG)
    first, second = converted("convert_fan_log.py", log, "--program", "game")
    assert (first.readings[0].fan_rpm, first.readings[0].hotspot_celsius) == (1000, 45.5)
    assert second.boottime_seconds == 1.5
    assert (second.readings[0].fan_percent, second.readings[0].fan_rpm) == (31, None)
    [use] = second.uses
    assert (use.process.program.name, use.use.engine_percent) == ("game", 98)
    [alone, _] = converted("convert_fan_log.py", log)
    assert alone.readings[0].processes is None


@pytest.mark.parametrize("script", ["convert_nvidia_smi_csv.py", "convert_fan_log.py"])
def test_what_is_no_log_is_told_in_one_line(script: str) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / script), __file__], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


REAL_CARDS = {
    "linux-x86_64__nvidia-geforce-rtx-2080-super__595.71.05": (
        ("NVIDIA GeForce RTX 2080 SUPER", 38, 40, 39.32, 0, 8),
        ("NVIDIA GeForce RTX 2080 SUPER", 38, 45, 111.5, 8, 2),
    ),
    "linux-x86_64__nvidia-h100-mig__590.48.01": (
        ("NVIDIA H100 80GB HBM3", None, 42, 70.72, None, 0),
        ("NVIDIA H100 80GB HBM3", None, 53, 447.35, None, 0),
    ),
    "linux-x86_64__nvidia-l40s__595.80": (
        ("NVIDIA L40S", None, 63, 127.67, 100, 0),
        ("NVIDIA L40S", None, 54, 112.38, 9, 0),
    ),
}
"""Capture -> idle and under load: name, fan percent, degrees, watts (of the moment), use, P-state; read by eye."""


def test_the_logs_of_real_cards(tmp_path: Path) -> None:
    """The csv parts of real captures; they are not the project's."""
    if SAMPLES is None:
        print("no samples are here: nothing was checked")
        return
    for capture in sorted((SAMPLES / "nvidia-smi-text").glob("*.txt")):
        seen = []
        for block in capture.read_text().split("\n\n"):
            rows = [line for line in block.splitlines() if not line.startswith("#")]
            if not rows or not rows[0].startswith("timestamp, ") or "temperature.gpu" not in rows[0]:
                continue
            log = tmp_path / "log.csv"
            log.write_text("\n".join(rows) + "\n")
            for snapshot in converted("convert_nvidia_smi_csv.py", log):
                [r] = snapshot.readings
                seen.append(
                    (
                        r.gpu.name,
                        r.fan_percent,
                        r.temperature_celsius,
                        r.power_watts,
                        r.utilization_percent,
                        r.performance_state,
                    )
                )
        assert seen
        assert tuple(seen) == REAL_CARDS.get(capture.stem, tuple(seen))
