"""How a card's fans are regulated, all taken together."""

from collections.abc import Iterable

from gpuwhyd.model import FanMode, FanReading


def mode_of_all(fans: Iterable[FanReading]) -> FanMode:
    """Manual when any fan is: that is the one that explains itself."""
    modes = {fan.mode for fan in fans}
    return next((mode for mode in (FanMode.MANUAL, FanMode.AUTO) if mode in modes), FanMode.UNKNOWN)
