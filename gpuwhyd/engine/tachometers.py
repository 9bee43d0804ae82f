"""What a card's real tachometers have shown, and whether a fan does not do what it is told.

Nothing is taken for a fault that a fan was not seen to do better itself: laptops expose fans that do not exist, one
card's tachometer says 0 up to 79 %, amdgpu says that a fan which turns is told 0 %, and fans of zero-RPM cards stand
still at 20 to 28 %. So a speed is learned only while a command is held, and asked for only at that command or above.
NVML has no tachometer: its fans are not judged here, see `suspicion`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gpuwhyd.engine.fan_level import STANDSTILL_RPM
from gpuwhyd.engine.flat import Flat
from gpuwhyd.engine.saved import optional_number, table
from gpuwhyd.model import FanControl, FanMode, FanReading, GpuReading

TOLD_PERCENT = 30.0
"""From here on a fan is told to turn. Cards were seen to tell up to 28 % for a fan that rests at standstill."""
HELD_PERCENT = 2.0
HELD_SECONDS = 10.0
"""A command within two points for so long is held; fans were seen to follow theirs by 1 to 12 s."""
STEP_PERCENT = 10
"""Speeds are learned in steps of so many points of the command."""
SLOW_PART = 0.5
"""A fan is slow with less than this part of the speed that it once held at the same command or a lower one."""
FAULT_SECONDS = 20.0
"""For so long, before a fan is called faulty: it takes a fan some seconds to start."""
WARM_CELSIUS = 50.0
"""A card below it that does not work needs no fan."""
WORKING_PERCENT = 10.0
ZERO_RPM_CELSIUS = 65.0
"""Here every fan turns: zero-RPM cards were seen to start theirs at 50 to 61 degC."""
ZERO_RPM_KELVIN = 10.0
"""A fan that may stand still stops 3 to 10 K below where it starts; drivers tell where it stops."""
MOST_FANS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class FanFault:
    """A fan that does not do what it is told."""

    kind: str
    """`stalled`, `slow`, or `suspected` where no tachometer tells."""
    told_percent: float
    for_seconds: float
    index: int | None = None
    """Which of several fans."""
    label: str | None = None
    rpm: float | None = None
    expected_rpm: float | None = None
    """What it held at this command or a lower one."""
    margin_celsius: float | None = None
    """How far the card is from its limit."""


@dataclass(slots=True)
class _Fan:
    held_rpm: dict[int, float] = field(default_factory=dict)
    """By the step of the command, the fastest speed that was held at it; standstill is not kept."""
    may_stand: bool = False
    """It was seen to stand still while it was not told to turn: perhaps a zero-RPM card's."""
    fault: str | None = None
    fault_since: float | None = None
    _command: Flat = field(default_factory=Flat)
    _slowest_rpm: float = 0.0
    _fastest_rpm: float = 0.0

    def expected_rpm(self, percent: float) -> float | None:
        """The least that it should do at this command; `None` while it was never seen to turn at so little."""
        step = int(percent) // STEP_PERCENT
        return max((rpm for at, rpm in self.held_rpm.items() if at <= step), default=None)

    def learn(self, now: float, percent: float, rpm: float) -> None:
        since = self._command.since
        self._command.feed(now, percent, HELD_PERCENT)
        if since is None or self._command.since != since:
            self._slowest_rpm = self._fastest_rpm = rpm
            return
        self._slowest_rpm, self._fastest_rpm = min(self._slowest_rpm, rpm), max(self._fastest_rpm, rpm)
        if not self.is_held(now):
            return
        if self._slowest_rpm >= STANDSTILL_RPM:
            step = int(self._command.low) // STEP_PERCENT
            self.held_rpm[step] = max(self.held_rpm.get(step, 0.0), self._slowest_rpm)
        elif self._fastest_rpm < STANDSTILL_RPM and percent < TOLD_PERCENT:
            self.may_stand = True

    def is_held(self, now: float) -> bool:
        """The command has not moved for long enough that the fan follows it."""
        return self._command.seconds(now) >= HELD_SECONDS

    def interrupted(self) -> None:
        self.fault = self.fault_since = self._command.since = None


@dataclass(slots=True)
class Tachometers:
    stalled: float | None = None
    """The rules' metric `fan_stalled`: 1 while a fan stands though it is told to turn, 0 while none does, `None` where no
    tachometer was ever seen to turn."""
    _fans: dict[int, _Fan] = field(default_factory=dict)

    def feed(self, now: float, reading: GpuReading, *, working: bool) -> None:
        """One reading; `working`: the card draws clearly more than at idle."""
        verdicts = []
        for fan in reading.fans[:MOST_FANS]:
            if not fan.rpm_is_measured or fan.rpm is None or fan.percent is None:
                continue
            known = self._fans.setdefault(fan.index, _Fan())
            known.learn(now, fan.percent, fan.rpm)
            expected = known.expected_rpm(fan.percent)
            if expected is None and not known.held_rpm:
                continue
            fault = None
            if expected is not None and _must_turn(reading, fan, known, working=working):
                if fan.rpm < STANDSTILL_RPM:
                    fault = "stalled"
                elif fan.rpm < SLOW_PART * expected and known.is_held(now):
                    fault = "slow"
            verdicts.append(fault == "stalled")
            if fault != known.fault:
                known.fault, known.fault_since = fault, now if fault else None
        self.stalled = float(any(verdicts)) if verdicts else None

    def interrupted(self) -> None:
        """A gap, a suspend, a card that is not read: what must hold without a break starts anew."""
        self.stalled = None
        for fan in self._fans.values():
            fan.interrupted()

    def fault(self, now: float, reading: GpuReading) -> FanFault | None:
        """The fault of a fan that has had one for long enough, the worst first."""
        worst = None
        for fan in reading.fans[:MOST_FANS]:
            known = self._fans.get(fan.index)
            if known is None or known.fault is None or known.fault_since is None or fan.percent is None:
                continue
            if now - known.fault_since < FAULT_SECONDS or (worst is not None and known.fault == "slow"):
                continue
            worst = FanFault(
                kind=known.fault,
                told_percent=fan.percent,
                for_seconds=now - known.fault_since,
                index=fan.index if len(reading.fans) > 1 else None,
                label=fan.label,
                rpm=fan.rpm,
                expected_rpm=known.expected_rpm(fan.percent),
            )
            if known.fault == "stalled":
                break
        return worst

    def saved(self) -> dict[str, object]:
        return {
            str(index): {
                "held_rpm": {str(step): rpm for step, rpm in fan.held_rpm.items()},
                "may_stand": fan.may_stand,
            }
            for index, fan in self._fans.items()
            if fan.held_rpm or fan.may_stand
        }

    @classmethod
    def restored(cls, saved: Mapping[str, object]) -> "Tachometers":
        """Raises TypeError or ValueError when the saved form is not ours."""
        fans = {}
        for index, item in list(saved.items())[:MOST_FANS]:
            fan = table(item)
            held = {int(step): optional_number(rpm) for step, rpm in table(fan.get("held_rpm", {})).items()}
            fans[int(index)] = _Fan(
                held_rpm={step: rpm for step, rpm in held.items() if rpm is not None},
                may_stand=bool(fan.get("may_stand")),
            )
        return cls(_fans=fans)


def _must_turn(reading: GpuReading, fan: FanReading, known: _Fan, *, working: bool) -> bool:
    """It is told to, the card has need of it, and it is not one that may stand still while the card is cool."""
    if fan.percent is None or fan.percent < TOLD_PERCENT or reading.fan_mode is FanMode.NONE:
        return False
    celsius, busy = reading.temperature_celsius, reading.utilization_percent
    needed = _stands_below(reading.fan_control, may_stand=known.may_stand)
    if needed is not None:
        return celsius is not None and celsius >= needed
    warm = celsius is not None and celsius >= WARM_CELSIUS
    return warm or working or (busy is not None and busy >= WORKING_PERCENT)


def _stands_below(control: FanControl | None, *, may_stand: bool) -> float | None:
    """Below which temperature the fan may stand still whatever it is told; `None`: at none."""
    enabled = control.zero_rpm_enabled if control is not None else None
    stop = control.zero_rpm_stop_celsius if control is not None else None
    if enabled is False or (enabled is None and not may_stand):
        return None
    return ZERO_RPM_CELSIUS if stop is None else stop + ZERO_RPM_KELVIN
