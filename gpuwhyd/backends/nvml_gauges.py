"""What a card is asked each tick: functions of the driver's library, each with arguments that are made once.

nvidia-ml-py's own functions look up the symbol, make the objects for the answer and check the result anew in each
call, which costs two thirds of reading a card. They stay in use for whatever is asked seldom, or as a fallback.
"""

import ctypes
import struct
from collections.abc import Callable
from typing import Any

from gpuwhyd.backends.nvml_library import FUNCTION_NOT_FOUND, NvmlLibrary
from gpuwhyd.backends.nvml_questions import Questions

_SENSOR_GPU = 0
_THRESHOLD_SLOWDOWN = 1
_CLOCK_GRAPHICS = 0
_CLOCK_MEMORY = 2

_MEMORY = struct.Struct("=I4xQQQQ")  # nvmlMemory_v2_t: version, total, reserved, free, used
_MEMORY_VERSION = _MEMORY.size | 2 << 24  # nvml.h, NVML_STRUCT_VERSION
_FAN_SPEED = struct.Struct("=III")  # nvmlFanSpeedInfo_v1_t: version, fan, RPM
_FAN_SPEED_VERSION = _FAN_SPEED.size | 1 << 24

Number = Callable[[], int | None]
"""Asks; None when the card declines or fails. Raises CardLostError and SessionLostError."""
Pair = Callable[[], tuple[int, int] | None]


class CardGauges:
    """The gauges of one card for as long as its handle lives, that is until NVML is shut down."""

    def __init__(self, library: NvmlLibrary, questions: Questions, handle: Any) -> None:
        self._library = library
        self._questions = questions
        self._handle = handle
        self._memory_buffer = ctypes.create_string_buffer(_MEMORY.size)
        _MEMORY.pack_into(self._memory_buffer, 0, _MEMORY_VERSION, 0, 0, 0, 0)
        self._memory = self._call("nvmlDeviceGetMemoryInfo_v2", self._memory_buffer)
        self.temperature = self._number("nvmlDeviceGetTemperature", _SENSOR_GPU)
        self.slowdown = self._number("nvmlDeviceGetTemperatureThreshold", _THRESHOLD_SLOWDOWN)
        self.power_limit = self._number("nvmlDeviceGetEnforcedPowerLimit")
        self.energy = self._number("nvmlDeviceGetTotalEnergyConsumption", kind=ctypes.c_ulonglong)
        self.performance_state = self._number("nvmlDeviceGetPerformanceState")
        self.core_clock = self._one_of("nvmlDeviceGetClockInfo", _CLOCK_GRAPHICS)
        self.memory_clock = self._one_of("nvmlDeviceGetClockInfo", _CLOCK_MEMORY)
        self.core_clock_max = self._one_of("nvmlDeviceGetMaxClockInfo", _CLOCK_GRAPHICS)
        self.memory_clock_max = self._one_of("nvmlDeviceGetMaxClockInfo", _CLOCK_MEMORY)
        self.event_reasons = self._number("nvmlDeviceGetCurrentClocksEventReasons", kind=ctypes.c_ulonglong)
        self.number_of_fans = self._number("nvmlDeviceGetNumFans")
        self.encoder = self._number_of_a_period("nvmlDeviceGetEncoderUtilization")
        self.decoder = self._number_of_a_period("nvmlDeviceGetDecoderUtilization")
        self.utilization = self._pair("nvmlDeviceGetUtilizationRates")
        self._fans: dict[int, FanGauges] = {}

    def memory(self) -> tuple[int, int] | None:
        """(used, total) in bytes."""
        if not self._memory():
            return None
        _, total, _, _, used = _MEMORY.unpack(self._memory_buffer)
        return used, total

    def fan(self, index: int) -> "FanGauges":
        if index not in self._fans:
            self._fans[index] = FanGauges(
                percent=self._one_of("nvmlDeviceGetFanSpeed_v2", index),
                rpm=self._fan_rpm(index),
                target=self._one_of("nvmlDeviceGetTargetFanSpeed", index),
                policy=self._one_of("nvmlDeviceGetFanControlPolicy_v2", index),
            )
        return self._fans[index]

    def _call(self, symbol: str, *arguments: object, name: str = "") -> Callable[[], bool]:
        """Makes the call, and says whether the card answered. `name` tells questions of one function apart."""
        questions, name, handle = self._questions, name or symbol, self._handle
        try:
            function = self._library.function(symbol)
        except self._library.nvml.NVMLError:  # an older driver
            function = _not_found

        def ask() -> bool:
            if questions.refusals and questions.is_declined(name):
                return False
            code = function(handle, *arguments)
            if code == 0:
                questions.answers += 1
                return True
            questions.refused(name, code)
            return False

        return ask

    def _number(self, symbol: str, *which: int, kind: Any = ctypes.c_uint, name: str = "") -> Number:
        answer = kind()
        ask = self._call(symbol, *which, ctypes.byref(answer), name=name)
        return lambda: answer.value if ask() else None

    def _one_of(self, symbol: str, which: int) -> Number:
        """A card may answer for one clock or fan and not for another."""
        return self._number(symbol, which, name=f"{symbol}({which})")

    def _number_of_a_period(self, symbol: str) -> Number:
        answer, period_us = ctypes.c_uint(), ctypes.c_uint()
        ask = self._call(symbol, ctypes.byref(answer), ctypes.byref(period_us))
        return lambda: answer.value if ask() else None

    def _pair(self, symbol: str) -> Pair:
        answer = (ctypes.c_uint * 2)()
        ask = self._call(symbol, ctypes.byref(answer))
        return lambda: (answer[0], answer[1]) if ask() else None

    def _fan_rpm(self, index: int) -> Number:
        """Of any fan; nvidia-ml-py's own function asks for fan 0 only."""
        info = ctypes.create_string_buffer(_FAN_SPEED.size)
        _FAN_SPEED.pack_into(info, 0, _FAN_SPEED_VERSION, index, 0)
        ask = self._call("nvmlDeviceGetFanSpeedRPM", info, name=f"nvmlDeviceGetFanSpeedRPM({index})")
        return lambda: _FAN_SPEED.unpack(info)[2] if ask() else None


class FanGauges:
    """One fan's."""

    __slots__ = ("percent", "policy", "rpm", "target")

    def __init__(self, *, percent: Number, rpm: Number, target: Number, policy: Number) -> None:
        self.percent = percent
        self.rpm = rpm
        self.target = target
        self.policy = policy


def _not_found(*_arguments: object) -> int:
    return FUNCTION_NOT_FOUND
