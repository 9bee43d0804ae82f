"""Numbers as a person reads them. Every function gives `-` for None: what is not known is never shown as 0."""

from datetime import UTC, datetime

UNKNOWN = "-"
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_LARGEST = 1e300
"""No quantity of a GPU; beyond it there are no seconds, bytes or microseconds to be reckoned with."""


def number(value: object) -> float | None:
    """`value` as a finite number where it is one; None for None, text, booleans and NaN, D-Bus's only empty number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -_LARGEST < value < _LARGEST else None


def percent(value: object) -> str:
    """0 to 100 -> `57 %`."""
    known = number(value)
    return UNKNOWN if known is None else f"{known:.0f} %"


def share(value: object) -> str:
    """0 to 1 -> `81 %`; a trace that would round to nothing is `<1 %`."""
    known = number(value)
    if known is None:
        return UNKNOWN
    return "<1 %" if 0 < known < 0.005 else f"{known * 100:.0f} %"


def watts(value: object) -> str:
    known = number(value)
    return UNKNOWN if known is None else f"{known:.0f} W"


def celsius(value: object) -> str:
    """`78 degC`, as the daemon's own sentences say it."""
    known = number(value)
    return UNKNOWN if known is None else f"{known:.0f} degC"


def rpm(value: object) -> str:
    known = number(value)
    return UNKNOWN if known is None else f"{known:.0f} RPM"


def size(value: object) -> str:
    """Bytes -> `6.1 GiB`."""
    known = number(value)
    if known is None:
        return UNKNOWN
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(known) < 1024:
            return f"{known:.0f} {unit}" if unit == "B" or known >= 100 else f"{known:.1f} {unit}"
        known /= 1024
    return f"{known:.1f} TiB"


def span(value: object) -> str:
    """Seconds -> the two largest units that say something: `40 s`, `5 min 33 s`, `2 h 5 min`, `3 d 4 h`."""
    known = number(value)
    if known is None:
        return UNKNOWN
    seconds = max(0, round(known))
    if seconds < _MINUTE:
        return f"{seconds} s"
    if seconds < _HOUR:
        return _two_units(seconds, _MINUTE, "min", 1, "s")
    if seconds < _DAY:
        return _two_units(seconds, _HOUR, "h", _MINUTE, "min")
    return _two_units(seconds, _DAY, "d", _HOUR, "h")


def about(value: object) -> str:
    """Seconds -> the largest unit that says something: `2 min`."""
    known = number(value)
    if known is None:
        return UNKNOWN
    for unit in (_DAY, _HOUR, _MINUTE):
        if known >= unit:
            return span(known // unit * unit)
    return span(known)


def _two_units(seconds: int, large: int, large_name: str, small: int, small_name: str) -> str:
    rest = seconds % large // small
    return f"{seconds // large} {large_name}" + (f" {rest} {small_name}" if rest else "")


def clock(wall_usec: object, now: datetime) -> str:
    """The local time of day; with the date when that is not the day of `now`."""
    known = number(wall_usec)
    if known is None:
        return UNKNOWN
    when = _local(known)
    return when.strftime("%H:%M:%S" if when.date() == now.astimezone().date() else "%Y-%m-%d %H:%M:%S")


def clock_and_date(wall_usec: object) -> str:
    """`2026-11-23 12:04:10`, local time."""
    known = number(wall_usec)
    return UNKNOWN if known is None else _local(known).strftime("%Y-%m-%d %H:%M:%S")


def _local(wall_usec: float) -> datetime:
    try:
        return datetime.fromtimestamp(wall_usec / 1e6, tz=UTC).astimezone()
    except (OverflowError, ValueError, OSError):
        # A wall clock that was never set, or a number that is no time: the begin of the epoch says so.
        return datetime.fromtimestamp(0, tz=UTC)
