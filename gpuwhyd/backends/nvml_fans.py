"""The fans of an NVIDIA card. NVML's percent and RPM are what the fan was told, not what it does."""

import re
from typing import Any

from gpuwhyd.backends.fan_mode import mode_of_all
from gpuwhyd.backends.nvml_gauges import CardGauges, FanGauges
from gpuwhyd.backends.nvml_questions import Questions
from gpuwhyd.backends.plausible import FAN_PERCENT, RPM, within
from gpuwhyd.model import FanMode, FanReading

_MAXIMUM_FANS = 16
_POLICIES = {0: FanMode.AUTO, 1: FanMode.MANUAL}
"""nvml.h: NVML_FAN_POLICY_TEMPERATURE_CONTINOUS_SW, NVML_FAN_POLICY_MANUAL."""

_PASSIVE_BOARDS = re.compile(r"\b(A2|A10|A10G|A10M|A16|A30|A30X|A40|A100|A100X|A800|L2|L4|L20|L40|L40S|T4|T4G|H100|H200|H800|H20|P4|P6|P40|P100|V100|V100S)\b")  # fmt: skip
"""Datacenter boards cooled by the chassis. Some of them (A10G, A40) answer 0 % instead of "not supported"."""
_HOT_CELSIUS = 65.0
_LOADED_SHARE = 0.3
_STILL_SECONDS = 60.0
"""A fan that stays at 0 % for so long, this hot and loaded, is none: cards that stop their fan start it at 50 to 60 degC."""


class FanReader:
    """Reads all fans of one card and learns whether it has any of its own."""

    def __init__(self) -> None:
        self._turned = False
        self._still_since: float | None = None
        self._passive = False

    def read(
        self, nvml: Any, handle: Any, gauges: CardGauges, questions: Questions
    ) -> tuple[FanReading, ...] | None:
        """Every fan the driver answers for; empty: the card has none; None: nothing can be said this time."""
        failures = questions.failures
        number = gauges.number_of_fans()
        if number is None:
            return self._read_old_driver(nvml, handle, questions, failures)
        fans = tuple(
            self._read_fan(nvml, handle, gauges.fan(index), questions, index)
            for index in range(min(number, _MAXIMUM_FANS))
        )
        known = tuple(fan for fan in fans if fan.percent is not None or fan.rpm is not None)
        if fans and not known and questions.failures > failures:
            return None
        return known

    def _read_fan(
        self, nvml: Any, handle: Any, gauges: FanGauges, questions: Questions, index: int
    ) -> FanReading:
        percent = gauges.percent()
        if percent is None and index == 0:
            percent = questions.ask("nvmlDeviceGetFanSpeed", nvml.nvmlDeviceGetFanSpeed, handle)
        policy = gauges.policy()
        return FanReading(
            index=index,
            percent=within(percent, *FAN_PERCENT),
            rpm=within(gauges.rpm(), *RPM),
            target_percent=within(gauges.target(), *FAN_PERCENT),
            mode=FanMode.UNKNOWN if policy is None else _POLICIES.get(policy, FanMode.UNKNOWN),
        )

    def _read_old_driver(
        self, nvml: Any, handle: Any, questions: Questions, failures: int
    ) -> tuple[FanReading, ...] | None:
        """Drivers before NumFans know one fan. NumFans not supported is how laptops say that they have none."""
        percent = questions.ask("nvmlDeviceGetFanSpeed", nvml.nvmlDeviceGetFanSpeed, handle)
        plausible = within(percent, *FAN_PERCENT)
        if plausible is not None:
            return (FanReading(index=0, percent=plausible),)
        return None if questions.failures > failures else ()

    def judge(
        self,
        fans: tuple[FanReading, ...] | None,
        *,
        name: str,
        temperature_celsius: float | None,
        power_share: float | None,
        now: float,
    ) -> tuple[FanMode, tuple[FanReading, ...]]:
        """The card's fan mode and its true fans. `power_share`: draw over limit; `now`: monotonic seconds."""
        if fans is None:
            return FanMode.UNKNOWN, ()
        if not fans:  # a fan that has turned is still there, whatever its sensors say
            return (FanMode.UNKNOWN if self._turned else FanMode.NONE), ()
        if any((fan.percent or 0) > 0 or (fan.rpm or 0) > 0 for fan in fans):
            self._turned, self._passive, self._still_since = True, False, None
        elif not self._turned:
            self._learn(temperature_celsius, power_share, now)
            if self._passive or _PASSIVE_BOARDS.search(name):
                return FanMode.NONE, ()
        return mode_of_all(fans), fans

    def _learn(self, temperature_celsius: float | None, power_share: float | None, now: float) -> None:
        hot = temperature_celsius is not None and temperature_celsius >= _HOT_CELSIUS
        loaded = power_share is not None and power_share > _LOADED_SHARE
        if not (hot and loaded):
            self._still_since = None
        elif self._still_since is None:
            self._still_since = now
        elif now - self._still_since >= _STILL_SECONDS:
            self._passive = True
