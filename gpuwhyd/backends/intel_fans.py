"""The fans of an Intel card: tachometers that several readers share.

Both drivers keep the pulses and the time of the last read, anybody's, and answer with the average since then
(hwm_fan_input_read, xe_hwmon_fan_input_read). So after a long pause the answer is history, right after somebody else's
read it is a guess from a pulse or two, and within the same tick of the kernel's clock it is EAGAIN.
"""

from collections.abc import Callable, Sequence

from gpuwhyd.backends.plausible import RPM
from gpuwhyd.backends.sysfs import Attributes
from gpuwhyd.model import FanMode, FanReading

LONG_AGO_SECONDS = 15.0
"""Longer than a tick, also while other cards sleep."""
SETTLE_SECONDS = 0.5
"""What is doubtful is read again after so long: at two pulses a turn that is exact to 120 RPM."""
JUMP_RPM = 250.0
"""No fan changes so much from tick to tick unless it starts or stops: a window under 0.25 s makes such jumps."""


class Tachometers:
    """`sleep` and `monotonic` are for tests."""

    def __init__(self, *, sleep: Callable[[float], None], monotonic: Callable[[], float]) -> None:
        self._sleep = sleep
        self._monotonic = monotonic
        self._before: dict[int, float] = {}
        self._read_at = float("-inf")

    def read(self, attributes: Attributes, fans: Sequence[tuple[int, str]]) -> tuple[FanReading, ...]:
        """Of (index, file) of each fan. A fan that could not be read (EAGAIN) is there without RPM."""
        if not fans:
            return ()
        now = self._monotonic()
        if now - self._read_at > LONG_AGO_SECONDS:
            self._before.clear()
        rpms = _rpms(attributes, fans)
        if any(self._is_doubtful(index, rpm) for index, rpm in rpms.items()):
            self._sleep(SETTLE_SECONDS)
            rpms = _rpms(attributes, fans)
        self._read_at = now
        self._before.update({index: rpm for index, rpm in rpms.items() if rpm is not None})
        return tuple(
            FanReading(index=index, rpm=rpm, mode=FanMode.AUTO, rpm_is_measured=True)
            for index, rpm in rpms.items()
        )

    def _is_doubtful(self, index: int, rpm: float | None) -> bool:
        before = self._before.get(index)
        return rpm is not None and (before is None or abs(rpm - before) > JUMP_RPM)


def _rpms(attributes: Attributes, fans: Sequence[tuple[int, str]]) -> dict[int, float | None]:
    return {index: attributes.number(file, *RPM) for index, file in fans}
