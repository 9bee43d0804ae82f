"""What a card did of late, in few numbers: finely where much happened, coarsely where nothing did."""

from dataclasses import dataclass, field

BIN_SECONDS = 4.0
"""Temperatures come in whole degrees; two or three of them make a mean."""
MOST_BINS = 64
JOINED_BINS = 16
"""Beyond so many, so many pairs of neighbours that differ least are joined: hours fit in."""
LATE_BINS = 15
"""The last minute stays as it is."""
KELVIN_PER_WATT = 0.3
KELVIN_PER_FAN_PART = 30.0
"""What a difference in power and in the fan's speed counts beside one of temperature."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Means over some seconds."""

    seconds: float
    watts: float
    fan_part: float
    """Of the fan's top speed, 0 to 1."""
    celsius: float


@dataclass(slots=True)
class Record:
    bins: list[Bin] = field(default_factory=list)
    _seconds: float = 0.0
    _joules: float = 0.0
    _fan: float = 0.0
    _kelvins: float = 0.0

    def feed(self, dt: float, watts: float, fan_part: float, celsius: float) -> bool:
        """What was so for `dt` seconds; whether that filled a bin."""
        self._seconds += dt
        self._joules += watts * dt
        self._fan += fan_part * dt
        self._kelvins += celsius * dt
        if self._seconds < BIN_SECONDS:
            return False
        seconds = self._seconds
        self.bins.append(Bin(seconds, self._joules / seconds, self._fan / seconds, self._kelvins / seconds))
        self._seconds = self._joules = self._fan = self._kelvins = 0.0
        if len(self.bins) > MOST_BINS:
            self._join()
        return True

    def clear(self) -> None:
        """What comes next does not go on from what was."""
        self.bins.clear()
        self._seconds = self._joules = self._fan = self._kelvins = 0.0

    def _join(self) -> None:
        bins, last = self.bins, len(self.bins) - LATE_BINS
        order = sorted(range(last - 1), key=lambda i: _difference(bins[i], bins[i + 1]))
        taken: set[int] = set()
        firsts: set[int] = set()
        for i in order:
            if len(firsts) == JOINED_BINS:
                break
            if i not in taken and i + 1 not in taken:
                firsts.add(i)
                taken |= {i, i + 1}
        self.bins = [
            _joined(one, bins[i + 1]) if i in firsts else one
            for i, one in enumerate(bins)
            if i in firsts or i not in taken
        ]


def _difference(one: Bin, other: Bin) -> float:
    """What is lost when two neighbours are joined: little, where one is short or both are alike."""
    kelvin = one.celsius - other.celsius
    watts = KELVIN_PER_WATT * (one.watts - other.watts)
    fan = KELVIN_PER_FAN_PART * (one.fan_part - other.fan_part)
    shares = one.seconds * other.seconds / (one.seconds + other.seconds)
    return shares * (kelvin * kelvin + watts * watts + fan * fan)


def _joined(one: Bin, two: Bin) -> Bin:
    seconds = one.seconds + two.seconds
    part = one.seconds / seconds

    def mean(first: float, second: float) -> float:
        return part * first + (1 - part) * second

    return Bin(
        seconds,
        mean(one.watts, two.watts),
        mean(one.fan_part, two.fan_part),
        mean(one.celsius, two.celsius),
    )
