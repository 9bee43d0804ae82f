#!/usr/bin/env python3
"""A log of `nvidia-smi --query-gpu=... --format=csv -l SECONDS` -> a recording for `gpuwhyd replay`, on standard output.

    nvidia-smi --query-gpu=timestamp,index,pci.bus_id,name,fan.speed,temperature.gpu,power.draw,power.limit,\\
        utilization.gpu,utilization.memory,memory.used,memory.total,pstate --format=csv -l 2 >card.csv
    script/convert_nvidia_smi_csv.py card.csv >card.jsonl

Any columns in any order, with units in the head (`power.draw [W]`) and in the values or without them; `timestamp` and
something that tells cards apart (`pci.bus_id`, `uuid` or `index`) where there are several. Such a log names no processes.
"""

import argparse
import csv
import json
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_UNIT = re.compile(r"\s*\[.*\]\s*$")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_MIB = 1 << 20
_TIMES = ("%Y/%m/%d %H:%M:%S.%f", "%Y/%m/%d %H:%M:%S")


def number(text: str) -> float | None:
    """`212.34 W` is 212.34; `[N/A]`, `[Not Supported]` and the like are nothing."""
    match = _NUMBER.match(text.strip())
    return float(match[0]) if match else None


def scaled(factor: int) -> Callable[[str], Any]:
    def read(text: str) -> int | None:
        value = number(text)
        return None if value is None else round(value * factor)

    return read


def pstate(text: str) -> int | None:
    digits = text.strip().removeprefix("P")
    return int(digits) if digits.isdecimal() else None


QUANTITIES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "temperature.gpu": ("temperature_celsius", number),
    "temperature.memory": ("memory_temperature_celsius", number),
    "power.draw.instant": ("power_watts", number),
    "power.draw": ("power_watts", number),
    "power.draw.average": ("power_average_watts", number),
    "power.limit": ("power_limit_watts", number),
    "enforced.power.limit": ("power_limit_watts", number),
    "utilization.gpu": ("utilization_percent", number),
    "utilization.memory": ("memory_utilization_percent", number),
    "utilization.encoder": ("encoder_percent", number),
    "utilization.decoder": ("decoder_percent", number),
    "memory.used": ("memory_used_bytes", scaled(_MIB)),
    "memory.total": ("memory_total_bytes", scaled(_MIB)),
    "clocks.gr": ("core_clock_mhz", number),
    "clocks.current.graphics": ("core_clock_mhz", number),
    "clocks.max.graphics": ("core_clock_max_mhz", number),
    "clocks.mem": ("memory_clock_mhz", number),
    "clocks.current.memory": ("memory_clock_mhz", number),
    "clocks.max.memory": ("memory_clock_max_mhz", number),
    "pstate": ("performance_state", pstate),
}
"""Column of nvidia-smi -> field of a reading, and how it is read; of two for one field the first that has a value.
`nvidia-smi --help-query-gpu` explains the columns."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--interval", type=float, default=1.0, help="seconds, where the log has no timestamps"
    )
    options = parser.parse_args()
    with options.file.open(newline="", encoding="utf-8", errors="replace") as file:
        for line in recording(csv.reader(file, skipinitialspace=True), options.interval):
            print(json.dumps(line))
    return 0


def recording(rows: Iterator[list[str]], interval_seconds: float) -> Iterator[dict[str, Any]]:
    """The lines of the recording. Exits with one line when the file is no such log."""
    head = next(rows, None)
    columns = [_UNIT.sub("", name).strip() for name in head or ()]
    if not any(name in QUANTITIES or name == "fan.speed" for name in columns):
        sys.exit(
            "this is no log of nvidia-smi --query-gpu=... --format=csv: its first line must name the columns"
        )
    yield {"gpuwhyd_recording": 1}
    known: set[str] = set()
    readings: dict[str, dict[str, Any]] = {}
    new: list[dict[str, str]] = []
    now, stamp = 0.0, None
    for row in rows:
        values = dict(zip(columns, row, strict=False))
        card = next(
            (values[name] for name in ("pci.bus_id", "gpu_bus_id", "uuid", "index") if name in values), "0"
        )
        gpu_id = "log_" + re.sub(r"[^0-9A-Za-z]+", "_", card).strip("_")
        said = _seconds(values.get("timestamp", ""))
        if gpu_id in readings:  # the next round begins
            yield _line(now, new, readings)
            new, readings = [], {}
            now = now + interval_seconds if said is None or stamp is None else now + max(0.0, said - stamp)
        if not readings and said is not None:
            stamp = said
        if gpu_id not in known:
            known.add(gpu_id)
            new.append({"id": gpu_id, "name": values.get("name") or "NVIDIA GPU", "vendor": "nvidia"})
        readings[gpu_id] = _reading(gpu_id, values)
    if readings:
        yield _line(now, new, readings)


def _line(now: float, new: list[dict[str, str]], readings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {"boottime_seconds": round(now, 3), "gpus": new, "readings": list(readings.values())}


def _reading(gpu_id: str, values: dict[str, str]) -> dict[str, Any]:
    reading: dict[str, Any] = {"gpu": gpu_id, "backend": "nvidia-smi"}
    for name, (field, read) in QUANTITIES.items():
        value = read(values[name]) if name in values else None
        if value is not None and field not in reading:
            reading[field] = value
    if "fan.speed" in values:
        percent = number(values["fan.speed"])
        if percent is None:
            reading["fan_mode"] = "none"
        else:
            reading["fans"] = [{"index": 0, "percent": percent}]
    return reading


def _seconds(text: str) -> float | None:
    """Without a zone: only differences are used. A log over a change to summer time has a gap of an hour there."""
    for pattern in _TIMES:
        try:
            return datetime.strptime(text.strip(), pattern).replace(tzinfo=UTC).timestamp()
        except ValueError:  # another form
            continue
    return None


if __name__ == "__main__":
    raise SystemExit(main())
