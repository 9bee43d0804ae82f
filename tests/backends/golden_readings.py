"""Readings against golden files: everything that a file does not name is None, but `can_suspend`, which no tool tells."""

import tomllib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from gpuwhyd.model import FanReading, GpuIdentity, GpuProcess, GpuReading

GOLDEN = Path(__file__).parent / "golden"


def assert_golden(readings: Sequence[GpuReading], file: Path) -> None:
    golden = tomllib.loads(file.read_text())["gpu"]
    assert [reading.gpu.id for reading in readings] == [one["identity"]["id"] for one in golden]
    for reading, one in zip(readings, golden, strict=True):
        assert reading.gpu == GpuIdentity(**one["identity"])
        assert reading.fans == tuple(
            FanReading(**{**fan, "percent": pytest.approx(fan.get("percent"))}) for fan in one.get("fans", [])
        )
        assert list(reading.processes or ()) == [
            GpuProcess(**process) for process in one.get("processes", [])
        ]
        expected: dict[str, Any] = one["reading"]
        reasons = expected.pop("throttle_reasons", None)
        assert reading.throttle_reasons == (None if reasons is None else tuple(reasons))
        told = {
            field.name: getattr(reading, field.name)
            for field in fields(GpuReading)
            if field.name not in {"gpu", "backend", "fans", "processes", "throttle_reasons", "can_suspend"}
            and getattr(reading, field.name) is not None
        }
        assert told == pytest.approx(expected)
