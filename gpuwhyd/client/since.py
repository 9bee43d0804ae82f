"""`--since`: a time in the past, as a person writes it."""

import re
from datetime import UTC, datetime, time, timedelta

_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_UNIT_WORDS = {"second": "s", "minute": "min", "hour": "h", "day": "d", "week": "w"}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)")
_FORMS = ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S")
_TODAY_FORMS = ("%H:%M", "%H:%M:%S")

_EPOCH = datetime.fromtimestamp(0, tz=UTC)

EXAMPLES = '2h, "3 days", today, yesterday, 14:30, 2026-11-23 or "2026-11-23 14:30"'


def since_usec(text: str, now: datetime) -> int:
    """Wall-clock microseconds of what `text` means at `now`, in local time; never after now.

    Knows spans back from now (`2h`, `1h 30min`, `3 days ago`, `-2h`), `today` and `yesterday` (their midnight), a time of
    this day, a date, and a date with time. Raises ValueError saying what is right.
    """
    words = text.strip().lower().removesuffix("ago").strip()
    when = _named_day(words, now) or _span_back(words.removeprefix("-"), now) or _point(text.strip(), now)
    if when is None:
        raise ValueError(f"{text!r} is no time that gpuwhy knows; write {EXAMPLES}")
    if when > now:
        raise ValueError(f"{text!r} is in the future; write {EXAMPLES}")
    return max(0, round(when.timestamp() * 1e6))


def _named_day(words: str, now: datetime) -> datetime | None:
    days_back = {"today": 0, "yesterday": 1}.get(words)
    if days_back is None:
        return None
    day = now.astimezone().date() - timedelta(days=days_back)
    return datetime.combine(day, time()).astimezone()


def _span_back(words: str, now: datetime) -> datetime | None:
    if not re.fullmatch(rf"(?:{_SPAN.pattern}\s*)+", words):
        return None
    seconds = 0.0
    for amount, unit in _SPAN.findall(words):
        name = _UNIT_WORDS.get(unit.removesuffix("s") or unit, unit)
        if name not in _SECONDS:
            return None
        seconds += float(amount) * _SECONDS[name]
    try:
        return now - timedelta(seconds=seconds)
    except OverflowError:
        return _EPOCH


def _point(text: str, now: datetime) -> datetime | None:
    for form in _FORMS + _TODAY_FORMS:
        try:
            when = datetime.strptime(text, form)  # noqa: DTZ007 - local time; astimezone knows its summer time
        except ValueError:
            continue
        if form in _TODAY_FORMS:
            when = datetime.combine(now.astimezone().date(), when.time())
        try:
            return when.astimezone()
        except (ValueError, OverflowError):  # the first and the last days of the calendar, in some zones
            return _EPOCH if when < datetime.now() else None  # noqa: DTZ005 - as above
    return None
