"""Simulated cards heat, cool and blow as recorded real ones do, and say the same each time."""

from collections.abc import Callable

import pytest

from gpuwhyd.backends.base import Backend, Probe
from gpuwhyd.backends.simulated import SimulatedBackend, SimulatedProcesses
from gpuwhyd.backends.simulated_clock import ScaledClock, scenario_clock
from gpuwhyd.backends.simulated_model import UPTIME_SECONDS, Scenario
from gpuwhyd.backends.simulated_scenario import load_scenario, parse_scenario, shipped_scenarios
from gpuwhyd.errors import ConfigError
from gpuwhyd.model import BackendState, FanMode, GpuReading, ProgramKind


class HandClock:
    """Simulated CLOCK_BOOTTIME, set by hand in seconds of the scenario."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return UPTIME_SECONDS + self.seconds


def story(scenario: Scenario, seconds: int, every: int = 1) -> list[tuple[GpuReading, ...]]:
    clock = HandClock()
    backend: Backend = SimulatedBackend(scenario, clock)
    assert backend.probe().answer is Probe.READY
    told = []
    for clock.seconds in range(0, seconds, every):
        readings = backend.read()
        assert readings.state is BackendState.READY
        told.append(readings.readings)
    return told


def of_card(index: int, told: list[tuple[GpuReading, ...]]) -> list[GpuReading]:
    return [readings[index] for readings in told]


def first(readings: list[GpuReading], condition: Callable[[GpuReading], bool], after: int = 0) -> int:
    return next(second for second, reading in enumerate(readings) if second >= after and condition(reading))


def watts(reading: GpuReading) -> float:
    assert reading.power_watts is not None
    return reading.power_watts


def celsius(reading: GpuReading) -> float:
    assert reading.temperature_celsius is not None
    return reading.temperature_celsius


def test_the_demo_tells_its_story_in_less_than_half_a_minute() -> None:
    scenario = load_scenario("demo")
    readings = of_card(0, story(scenario, 400))
    fan_starts = first(readings, lambda reading: reading.fan_percent >= 8)
    program_exits = first(readings, lambda reading: not reading.processes, after=fan_starts)
    fan_stops = first(readings, lambda reading: reading.fan_percent == 0, after=program_exits)
    assert 10 < fan_starts < 60
    assert program_exits == 190
    assert 60 < fan_stops - program_exits < 180, "the after-run must be long enough to be seen"
    assert (fan_stops + 10 + 60) / scenario.speed < 40, "the end is told a minute after the fan has stopped"
    assert {reading.fan_percent for reading in readings[fan_stops:]} == {0}
    assert max(reading.fan_rpm for reading in readings) > 1500


def test_a_load_step_makes_temperature_jump_and_then_creep() -> None:
    readings = of_card(0, story(load_scenario("demo"), 190))
    at_start, soon, late, last = (celsius(readings[second]) for second in (9, 25, 130, 189))
    assert 8 <= soon - at_start <= 20
    assert 10 <= late - soon <= 30
    assert 0 <= last - late <= 8


def test_a_zero_rpm_fan_starts_warmer_than_it_stops() -> None:
    readings = of_card(0, story(load_scenario("demo"), 400))
    starts = first(readings, lambda reading: reading.fan_percent > 0)
    stops = first(readings, lambda reading: reading.fans[0].target_percent == 0, after=starts)
    assert celsius(readings[starts]) == pytest.approx(52, abs=2)
    assert celsius(readings[stops]) == pytest.approx(47, abs=1)


def test_rpm_follows_percent_late() -> None:
    readings = of_card(0, story(load_scenario("demo"), 60))
    starts = first(readings, lambda reading: reading.fan_percent > 5)
    fan = readings[starts].fans[0]
    assert fan.rpm < fan.percent / 100 * fan.rpm_max
    assert not fan.rpm_is_measured


def test_energy_is_the_sum_of_power() -> None:
    readings = of_card(0, story(load_scenario("demo"), 300))
    assert readings[-1].energy_joules == pytest.approx(sum(map(watts, readings)), rel=0.01)


def test_the_same_scenario_and_clock_give_the_same_readings() -> None:
    scenario = load_scenario("two-cards")
    assert story(scenario, 200) == story(scenario, 200)


def test_a_reading_does_not_depend_on_how_often_one_looked() -> None:
    scenario = load_scenario("two-cards")
    assert story(scenario, 241)[240] == story(scenario, 241, every=240)[1]


def test_another_seed_gives_other_noise() -> None:
    toml = '[[card]]\nname = "a"\n'
    one, other = (story(parse_scenario(f"seed = {seed}\n{toml}", "test"), 20) for seed in (1, 2))
    assert one != other


def test_a_card_without_a_fan_has_no_fan_but_everything_else() -> None:
    reading = story(load_scenario("no-fan"), 100)[-1][0]
    assert reading.fan_mode is FanMode.NONE
    assert reading.fans == ()
    assert reading.fan_percent is None
    assert watts(reading) > 250


def test_a_pinned_fan_stays_where_it_is() -> None:
    readings = of_card(0, story(load_scenario("manual-fan"), 100))
    assert {reading.fan_percent for reading in readings} == {70}
    assert {reading.fan_mode for reading in readings} == {FanMode.MANUAL}


@pytest.mark.parametrize(("card", "rest_percent"), [(0, 0), (1, 27), (2, 41)])
def test_cards_joined_in_mid_load_are_loud_and_come_to_their_own_rest(card: int, rest_percent: int) -> None:
    scenario = load_scenario("mid-load")
    readings = of_card(card, story(scenario, 1800, every=60))
    joined = readings[int(scenario.join_seconds) // 60]
    assert joined.fan_percent > rest_percent + 15
    assert watts(joined) > 150
    assert {reading.fan_percent for reading in readings[25:]} == {rest_percent}


def test_two_cards_have_their_own_programs() -> None:
    first_card, second_card = story(load_scenario("two-cards"), 120)[-1]
    assert [process.pid for process in second_card.processes or ()] == [24242]
    assert [process.pid for process in first_card.processes or ()] == [4242, 14242]
    assert first_card.gpu.id == "pci_0000_01_00_0"
    assert second_card.gpu.pci_address == "0000:02:00.0"


def test_programs_share_an_engine_that_cannot_do_more_than_all() -> None:
    program = '[[program]]\nname = "p"\nload = [["0s", 80]]\n'
    reading = story(parse_scenario('[[card]]\nname = "a"\n' + program * 2, "test"), 5)[-1][0]
    assert [process.engine_percent for process in reading.processes or ()] == [50, 50]
    assert watts(reading) <= 220 * 1.05


def test_a_card_at_its_power_limit_says_so() -> None:
    toml = '[[card]]\nname = "a"\n[[program]]\nname = "p"\nload = [["0s", 100]]\nwatts_at_full_load = 400\n'
    reading = story(parse_scenario(toml, "test"), 5)[-1][0]
    assert reading.throttle_reasons == ("power-cap",)
    assert watts(reading) == pytest.approx(220, rel=0.05)


def test_a_card_that_gets_too_hot_slows_down() -> None:
    toml = '[[card]]\nname = "no fan, no air"\n[[program]]\nname = "p"\nload = [["0s", 100]]\n'
    readings = of_card(0, story(parse_scenario(toml, "test"), 900, every=30))
    assert readings[-1].throttle_reasons == ("sw-thermal",)
    assert max(map(celsius, readings)) < 95
    assert watts(readings[-1]) < 150


def test_a_program_is_who_the_scenario_says_it_is() -> None:
    clock = HandClock()
    clock.seconds = 100
    processes = SimulatedProcesses(load_scenario("two-cards"), clock)
    kinds = {}
    for pid in (4242, 14242, 24242):
        process = processes.identify(pid)
        assert process is not None
        kinds[process.program.kind] = (process.program.key, process.program.name, process.user)
    assert kinds == {
        ProgramKind.CONTAINER: ("container:docker:5f0c2a9be713", "train.py (docker)", "anna"),
        ProgramKind.UNIT: ("unit:whisper.service", "whisper.service", "whisper"),
        ProgramKind.APP: ("app:1001:com.valvesoftware.Steam", "com.valvesoftware.Steam", "ben"),
    }


def test_a_bare_process_is_told_apart_by_its_start() -> None:
    clock = HandClock()
    toml = '[[card]]\nname = "a"\n[[program]]\nname = "p"\nstart = "5s"\nload = [["0s", 1]]\n'
    processes = SimulatedProcesses(parse_scenario(toml, "test"), clock)
    assert processes.identify(4242) is None
    clock.seconds = 6
    process = processes.identify(4242)
    assert process is not None
    assert process.program.kind is ProgramKind.PROCESS
    assert process.program.key == f"process:4242:{process.start_ticks}"
    assert process.start_ticks == (UPTIME_SECONDS + 5) * 100


def test_an_exit_is_told_once_and_when_it_was() -> None:
    clock = HandClock()
    processes = SimulatedProcesses(load_scenario("demo"), clock)
    clock.seconds = 20
    process = processes.identify(4242)
    assert processes.exits(clock()) == ()
    clock.seconds = 192
    (ended,) = processes.exits(clock())
    assert (ended.process, ended.boottime_seconds) == (process, UPTIME_SECONDS + 190)
    assert processes.exits(clock()) == ()
    assert processes.identify(4242) is None


def test_a_program_that_repeats_comes_back_as_another_process() -> None:
    clock = HandClock()
    processes = SimulatedProcesses(load_scenario("demo"), clock)
    clock.seconds = 20
    once = processes.identify(4242)
    clock.seconds = 20 + 20 * 60
    (ended,) = processes.exits(clock())
    assert ended.process == once
    again = processes.identify(4243)
    assert once is not None
    assert again is not None
    assert again.program == once.program
    assert again.start_ticks > once.start_ticks


def test_a_scaled_clock_runs_fast_and_waits_short() -> None:
    real = 100.0
    clock = ScaledClock(20, 1000.0, real_seconds=lambda: real, real_wall_usec=lambda: 5_000_000)
    assert (clock.boottime_seconds(), clock.wall_usec()) == (1000.0, 5_000_000)
    real = 103.0
    assert (clock.boottime_seconds(), clock.wall_usec()) == (1060.0, 65_000_000)
    assert clock.real_duration(2.0) == pytest.approx(0.1)


def test_the_daemon_joins_a_scenario_when_it_says() -> None:
    scenario = load_scenario("mid-load")
    assert scenario.seconds(scenario_clock(scenario).boottime_seconds()) == pytest.approx(900, abs=20)


def test_every_shipped_scenario_can_be_read() -> None:
    assert shipped_scenarios() == ("demo", "manual-fan", "mid-load", "no-fan", "two-cards")
    for name in shipped_scenarios():
        assert load_scenario(name).cards


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        ("", "s.toml: card is missing"),
        ("card = 1", "s.toml: card: must be written [[card]], once for each, not as the number 1"),
        ("card = []", "s.toml: needs a [[card]]"),
        ("[[card]]", "s.toml: card 0: name is missing"),
        ('[[card]]\nname = "a"\nfann = 1', 's.toml: card 0: unknown key "fann"; did you mean "fan"?'),
        (
            '[[card]]\nname = "\\u001b[2J"',
            's.toml: card 0: name must be a text of 1 to 200 characters without control characters, not the string "?[2J"',
        ),
        ("speed = 0\n[[card]]", "s.toml: speed must be from 0.1 to 1000, not 0"),
        (
            '[[card]]\nname = "a"\nidle_watts = 300',
            "s.toml: card 0: idle_watts must be below limit_watts, 220",
        ),
        (
            '[[card]]\nname = "a"\n[card.fan]\nstart_celsius = 40',
            "s.toml: card 0: fan: stop_celsius must be below start_celsius, 40",
        ),
        (
            '[[card]]\nname = "a"\n[card.fan]\ncurve = [[50, 30], [40, 20]]',
            "s.toml: card 0: fan: curve must hold [degC, percent] pairs, each later than the one before",
        ),
        (
            '[[card]]\nname = "a"\n[card.fan]\nmode = "none"',
            's.toml: card 0: fan: mode is "none", which is not known; known are auto, manual',
        ),
        (
            '[[card]]\nname = "a"\n[[program]]\nname = "p"\ncard = 1\nload = [["0s", 1]]',
            "s.toml: program 0: card = 1, but the last card is 0",
        ),
        (
            '[[card]]\nname = "a"\n[[program]]\nname = "p"\nload = [["0s", 101]]',
            "s.toml: program 0: load entry 1 must be from 0 to 100 %, not 101",
        ),
        (
            '[[card]]\nname = "a"\n[[program]]\nname = "p"\nstart = "5s"\nexit = "5s"\nload = [["0s", 1]]',
            "s.toml: program 0: exit must be later than start",
        ),
        (
            '[[card]]\nname = "a"\n[[program]]\nname = "p"\nrepeat = "5s"\nload = [["0s", 1]]',
            "s.toml: program 0: repeat needs an exit that comes before the next start",
        ),
        (
            '[[card]]\nname = "a"\npci_address = "0000:01:00.0"\n[[card]]\nname = "b"\npci_address = "0000:01:00.0"',
            "s.toml: pci_address 0000:01:00.0 is there twice; each card needs its own",
        ),
    ],
)
def test_a_mistake_in_a_scenario_is_one_line_that_says_what_is_right(toml: str, line: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_scenario(toml, "s.toml")
    assert str(raised.value) == line


def test_an_unknown_scenario_names_those_there_are() -> None:
    with pytest.raises(
        ConfigError, match=r'^there is no scenario dmo; did you mean "demo"\? \(or give the path'
    ):
        load_scenario("dmo")


def test_a_scenario_file_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"my\.toml: there is no such file$"):
        load_scenario(tmp_path / "my.toml")
