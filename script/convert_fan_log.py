#!/usr/bin/env python3
"""A fan log, CSV with one row a sample -> a recording for `gpuwhyd replay`, on standard output.

    script/convert_fan_log.py card.csv >card.jsonl

Columns: `time_s`, `fan_percent`, `fan_rpm`, `temp_c`, `hotspot_c`, `power_w`, `util_percent`, `mem_util_percent`,
`mem_used_mib`; empty or absent where the log has no such value. Logs of GPU-Z, HWiNFO and the like are easily brought into
this form. They name no processes: `--program NAME` says that one program, of this name, made all the load.
"""

import argparse
import csv
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

QUANTITIES = {
    "temp_c": "temperature_celsius",
    "hotspot_c": "hotspot_celsius",
    "power_w": "power_watts",
    "util_percent": "utilization_percent",
    "mem_util_percent": "memory_utilization_percent",
}
_PID = 1000
_MIB = 1 << 20


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--name", help="of the card; the file's name if not given")
    parser.add_argument("--program", help="that made the load")
    options = parser.parse_args()
    with options.file.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.DictReader(file)
        if "time_s" not in (rows.fieldnames or ()):
            sys.exit("this is no fan log: a column time_s is missing")
        for line in recording(rows, options.name or options.file.stem, options.program):
            print(json.dumps(line))
    return 0


def recording(rows: Iterable[Mapping[str, str]], name: str, program: str | None) -> Iterator[dict[str, Any]]:
    """The lines of the recording."""
    yield {"gpuwhyd_recording": 1}
    introduced = {
        "gpus": [{"id": "log", "name": name, "vendor": "unknown"}],
        "processes": [] if program is None else [_process(program)],
    }
    last = -math.inf
    for row in rows:
        now = number(row.get("time_s"))
        if now is None or now < last:
            continue
        last = now
        yield {"boottime_seconds": now, **introduced, "readings": [_reading(row, program)]}
        introduced = {}


def number(text: str | None) -> float | None:
    try:
        value = float(text) if text else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _reading(row: Mapping[str, str], program: str | None) -> dict[str, Any]:
    reading: dict[str, Any] = {"gpu": "log", "backend": "log"}
    for column, field in QUANTITIES.items():
        if (value := number(row.get(column))) is not None:
            reading[field] = value
    if (mebibytes := number(row.get("mem_used_mib"))) is not None:
        reading["memory_used_bytes"] = round(mebibytes * _MIB)
    percent, rpm = number(row.get("fan_percent")), number(row.get("fan_rpm"))
    fan = {name: value for name, value in (("percent", percent), ("rpm", rpm)) if value is not None}
    if fan:
        reading["fans"] = [{"index": 0, **fan, "rpm_is_measured": rpm is not None}]
    if program is not None:
        busy = {"engine_percent": reading["utilization_percent"]} if "utilization_percent" in reading else {}
        reading["processes"] = [{"pid": _PID, **busy}]
    return reading


def _process(program: str) -> dict[str, Any]:
    return {
        "pid": _PID,
        "start_ticks": 1,
        "name": program,
        "program": {"kind": "process", "key": f"process:{program}", "name": program},
    }


if __name__ == "__main__":
    raise SystemExit(main())
