import time
from datetime import UTC, datetime
from math import nan

import pytest

from gpuwhyd.client import quantities
from gpuwhyd.client.since import since_usec
from tests.client.reports import WALL_USEC


@pytest.fixture
def central_european_time(monkeypatch):
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    "show",
    [
        quantities.percent,
        quantities.share,
        quantities.watts,
        quantities.celsius,
        quantities.rpm,
        quantities.size,
        quantities.span,
    ],
)
@pytest.mark.parametrize("nothing", [None, nan, "", True])
def test_what_is_not_known_is_a_dash_and_never_zero(show, nothing):
    assert show(nothing) == "-"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (40.4, "40 s"),
        (60, "1 min"),
        (333, "5 min 33 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86400, "1 d"),
        (273600, "3 d 4 h"),
        (-5, "0 s"),
    ],
)
def test_a_span_is_told_in_its_two_largest_units(seconds, words):
    assert quantities.span(seconds) == words


def test_numbers_have_their_units():
    assert quantities.percent(56.7) == "57 %"
    assert quantities.share(0.812) == "81 %"
    assert quantities.share(0.0001) == "<1 %"
    assert quantities.share(0) == "0 %"
    assert quantities.size(6.1 * 2**30) == "6.1 GiB"
    assert quantities.size(512 << 20) == "512 MiB"
    assert quantities.size(17) == "17 B"
    assert quantities.size(3 << 40) == "3.0 TiB"


def test_times_are_local_and_name_the_day_when_it_is_another(central_european_time):
    now = datetime.fromtimestamp(WALL_USEC / 1e6 + 60, tz=UTC)
    assert quantities.clock(WALL_USEC, now) == "17:00:00"
    assert quantities.clock(WALL_USEC - 86_400_000_000, now) == "2025-11-23 17:00:00"
    assert quantities.clock_and_date(WALL_USEC) == "2025-11-24 17:00:00"
    assert quantities.clock_and_date(1 << 80) == "1970-01-01 00:00:00"


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("2h", "2026-11-23 10:00:00"),
        ("-2h", "2026-11-23 10:00:00"),
        ("90 min", "2026-11-23 10:30:00"),
        ("1h 30min", "2026-11-23 10:30:00"),
        ("3 days ago", "2026-11-20 12:00:00"),
        ("1 week", "2026-11-16 12:00:00"),
        ("Yesterday", "2026-11-22 00:00:00"),
        ("today", "2026-11-23 00:00:00"),
        ("09:30", "2026-11-23 09:30:00"),
        ("2026-11-01", "2026-11-01 00:00:00"),
        ("2026-07-01 14:30", "2026-07-01 14:30:00"),
        ("2026-07-01T14:30:05", "2026-07-01 14:30:05"),
    ],
)
def test_since_takes_what_people_write_in_local_time(central_european_time, text, local):
    now = datetime(2026, 11, 23, 11, 0, tzinfo=UTC)  # noon in this zone
    assert quantities.clock_and_date(since_usec(text, now)) == local


@pytest.mark.parametrize(
    "text", ["", "soon", "2 parsecs", "2026-13-01", "--2h", "-today", "2027-01-01", "23:59", "s", "now()"]
)
def test_since_says_what_would_be_right(central_european_time, text):
    with pytest.raises(ValueError, match=r'2h, "3 days", today'):
        since_usec(text, datetime(2026, 11, 23, 11, 0, tzinfo=UTC))


def test_since_far_beyond_all_time_is_the_begin_of_time():
    assert since_usec("99999999999d", datetime(2026, 11, 23, tzinfo=UTC)) == 0
