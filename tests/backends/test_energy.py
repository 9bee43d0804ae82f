"""Power from energy counters: only what a counter that moves has said."""

from gpuwhyd.backends.energy import LONGEST_WINDOW_SECONDS, EnergyMeter


def test_the_first_sample_has_energy_and_no_power() -> None:
    assert EnergyMeter().read([("card", 500.0)], 10.0) == (None, 500.0)


def test_power_is_what_was_gained_over_the_real_time_between_reads() -> None:
    meter = EnergyMeter()
    meter.read([("card", 500.0)], 10.0)
    assert meter.read([("card", 650.0)], 13.0) == (50.0, 650.0)
    assert meter.read([("card", 660.0)], 13.5) == (20.0, 660.0)


def test_a_counter_that_stays_0_gives_way_to_the_next_one() -> None:
    meter = EnergyMeter()
    assert meter.read([("card", 0.0), ("pkg", 100.0)], 0.0) == (None, 100.0)
    assert meter.read([("card", 0.0), ("pkg", 130.0)], 2.0) == (15.0, 130.0)
    assert meter.source == "pkg"


def test_a_counter_that_stands_still_at_a_value_gives_way_to_the_next_one() -> None:
    meter = EnergyMeter()
    meter.read([("card", 7.0), ("pkg", 100.0)], 0.0)
    assert meter.read([("card", 7.0), ("pkg", 130.0)], 2.0) == (15.0, 130.0)


def test_once_chosen_a_counter_stays_the_one_also_when_a_better_one_wakes_up() -> None:
    meter = EnergyMeter()
    meter.read([("card", 7.0), ("pkg", 100.0)], 0.0)
    meter.read([("card", 7.0), ("pkg", 130.0)], 2.0)
    assert meter.read([("card", 99.0), ("pkg", 150.0)], 4.0) == (10.0, 150.0)


def test_the_whole_cards_counter_is_the_better_one() -> None:
    meter = EnergyMeter()
    meter.read([("card", 10.0), ("pkg", 100.0)], 0.0)
    assert meter.read([("card", 90.0), ("pkg", 130.0)], 2.0) == (40.0, 90.0)


def test_when_the_chosen_counter_goes_the_other_one_takes_over() -> None:
    meter = EnergyMeter()
    meter.read([("card", 10.0), ("pkg", 100.0)], 0.0)
    meter.read([("card", 90.0), ("pkg", 130.0)], 2.0)
    assert meter.read([("card", None), ("pkg", 150.0)], 4.0) == (10.0, 150.0)


def test_a_counter_that_starts_anew_says_nothing_once() -> None:
    meter = EnergyMeter()
    meter.read([("card", 500.0)], 0.0)
    meter.read([("card", 600.0)], 2.0)
    assert meter.read([("card", 3.0)], 4.0) == (None, 3.0)
    assert meter.read([("card", 23.0)], 6.0) == (10.0, 23.0)


def test_a_counter_that_is_updated_more_seldom_than_it_is_read_gives_no_exaggerated_power() -> None:
    meter = EnergyMeter()
    meter.read([("card", 100.0)], 0.0)
    assert meter.read([("card", 100.0)], 2.0) == (None, 100.0)
    assert meter.read([("card", 140.0)], 4.0) == (10.0, 140.0)


def test_an_average_over_minutes_is_no_power_of_now() -> None:
    meter = EnergyMeter()
    meter.read([("card", 100.0)], 0.0)
    assert meter.read([("card", 900.0)], LONGEST_WINDOW_SECONDS + 1) == (None, 900.0)
    assert meter.read([("card", 920.0)], LONGEST_WINDOW_SECONDS + 3) == (10.0, 920.0)


def test_a_card_without_counters_has_no_power() -> None:
    meter = EnergyMeter()
    assert meter.read([], 0.0) == (None, None)
    assert meter.read([("card", None)], 1.0) == (None, None)
    assert meter.source is None


def test_a_clock_that_stands_still_gives_no_power() -> None:
    meter = EnergyMeter()
    meter.read([("card", 100.0)], 5.0)
    assert meter.read([("card", 200.0)], 5.0) == (None, 200.0)
