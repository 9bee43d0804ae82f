"""Scenario files -> what is simulated. `docs/simulation.md` is their manual."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from gpuwhyd.backends.simulated_model import (
    Card,
    FanModel,
    LoadStep,
    Scenario,
    SimulatedProgram,
    ThermalModel,
)
from gpuwhyd.errors import ConfigError
from gpuwhyd.model import PCI_ADDRESS, FanMode
from gpuwhyd.resources import resource
from gpuwhyd.tables import (
    Key,
    WrongValueError,
    array,
    boolean,
    choice,
    duration,
    kind_of,
    number,
    parse_toml,
    read_file,
    read_table,
    suggestion,
    tables,
    text,
    whole_number,
)


def shipped_scenarios() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in resource("config/scenarios").glob("*.toml")))


def load_scenario(name_or_path: str | Path) -> Scenario:
    """A shipped scenario by its name (`demo`), or a file. Raises ConfigError: one line, what is wrong and what is right."""
    path = Path(name_or_path)
    if "/" not in str(name_or_path) and path.suffix != ".toml":
        names = shipped_scenarios()
        if str(path) not in names:
            raise ConfigError(
                f"there is no scenario {path}; {suggestion(str(path), names)} (or give the path of a .toml file)"
            )
        path = resource("config/scenarios") / f"{path}.toml"
    return parse_scenario(read_file(path), str(path))


_SECONDS = duration(0, 30 * 86400)
_LAG = duration(0.5, 3600)
_KELVIN_PER_WATT = number(0.001, 20, "K/W")
_CELSIUS = number(-20, 120, "degC")
_PERCENT = number(0, 100, "%")
_WATTS = number(0, 5000, "W")
_NAME = text(r"[^\x00-\x1f\x7f]{1,200}", "a text of 1 to 200 characters without control characters")
_PCI_ADDRESS = text(PCI_ADDRESS.pattern, 'a PCI address such as "0000:01:00.0"')
_MOST_CARDS = 16
_MOST_PROGRAMS = 200


def _mebibytes(value: object) -> int:
    return whole_number(0, 1 << 24, "MiB")(value) << 20


def _fan_mode(value: object) -> FanMode:
    return FanMode(choice(FanMode.AUTO, FanMode.MANUAL)(value))


def _pair(first: Callable[[object], float], second: Callable[[object], float], meaning: str) -> Any:
    """A reader of arrays of two."""

    def read(value: object) -> tuple[float, float]:
        if not isinstance(value, list) or len(value) != 2:
            raise WrongValueError(f"must be {meaning}, not {kind_of(value)}")
        return first(value[0]), second(value[1])

    return read


def _rising(pair: Callable[[object], tuple[float, float]], meaning: str) -> Any:
    """A reader of pairs whose first parts rise."""

    def read(value: object) -> tuple[tuple[float, float], ...]:
        pairs = array(pair, meaning)(value)
        if not pairs or any(later[0] <= earlier[0] for earlier, later in pairwise(pairs)):
            raise WrongValueError(f"must hold {meaning}, each later than the one before")
        return pairs

    return read


_CURVE = _rising(_pair(_CELSIUS, _PERCENT, "[degC, percent]"), "[degC, percent] pairs")
_LOAD = _rising(_pair(_SECONDS, _PERCENT, '["10s", percent]'), '["10s", percent] pairs')

_TOP_KEYS = (
    Key(name="speed", field="speed", read=number(0.1, 1000)),
    Key(name="join", field="join_seconds", read=_SECONDS),
    Key(name="seed", field="seed", read=whole_number(0, 2**32)),
    Key(name="card", field="card", read=lambda value: value, required=True),
    Key(name="program", field="program", read=lambda value: value),
)
_CARD_KEYS = (
    Key(name="name", field="name", read=_NAME, required=True),
    Key(name="pci_address", field="pci_address", read=_PCI_ADDRESS),
    Key(name="ambient_celsius", field="ambient_celsius", read=_CELSIUS),
    Key(name="idle_watts", field="idle_watts", read=_WATTS),
    Key(name="limit_watts", field="limit_watts", read=_WATTS),
    Key(name="temperature_limit_celsius", field="temperature_limit_celsius", read=_CELSIUS),
    Key(name="memory_mib", field="memory_total_bytes", read=_mebibytes),
    Key(name="thermal", field="thermal", read=lambda value: value),
    Key(name="fan", field="fan", read=lambda value: value),
)
_THERMAL_KEYS = (
    Key(name="die", field="die_seconds", read=_LAG),
    Key(name="die_kelvin_per_watt", field="die_kelvin_per_watt", read=_KELVIN_PER_WATT),
    Key(name="heatsink", field="heatsink_seconds", read=_LAG),
    Key(name="heatsink_kelvin_per_watt", field="heatsink_kelvin_per_watt", read=_KELVIN_PER_WATT),
    Key(name="fan_cooling", field="fan_cooling", read=number(0, 20)),
)
_FAN_KEYS = (
    Key(name="count", field="count", read=whole_number(1, 8)),
    Key(name="mode", field="mode", read=_fan_mode),
    Key(name="manual_percent", field="manual_percent", read=_PERCENT),
    Key(name="zero_rpm", field="zero_rpm", read=boolean),
    Key(name="start_celsius", field="start_celsius", read=_CELSIUS),
    Key(name="stop_celsius", field="stop_celsius", read=_CELSIUS),
    Key(name="min_percent", field="min_percent", read=_PERCENT),
    Key(name="curve", field="curve", read=_CURVE),
    Key(name="lag", field="lag_seconds", read=_LAG),
    Key(name="rpm_max", field="rpm_max", read=number(100, 30000, "RPM")),
)
_PROGRAM_KEYS = (
    Key(name="name", field="name", read=_NAME, required=True),
    Key(name="card", field="card", read=whole_number(0, _MOST_CARDS - 1)),
    Key(name="start", field="start_seconds", read=_SECONDS),
    Key(name="exit", field="exit_seconds", read=_SECONDS),
    Key(name="load", field="load", read=_LOAD, required=True),
    Key(name="watts_at_full_load", field="watts_at_full_load", read=_WATTS),
    Key(name="memory_mib", field="memory_bytes", read=_mebibytes),
    Key(name="repeat", field="repeat_seconds", read=duration(1, 30 * 86400)),
    Key(name="unit", field="unit", read=_NAME),
    Key(name="user_unit", field="user_unit", read=_NAME),
    Key(
        name="container",
        field="container",
        read=text(r"[a-z]+:[^\s]{1,200}", 'such as "docker:0123456789ab"'),
    ),
    Key(name="app", field="app", read=_NAME),
    Key(name="user", field="user", read=_NAME),
    Key(name="uid", field="uid", read=whole_number(0, 2**31)),
    Key(name="command", field="command", read=array(_NAME, "strings")),
)


def parse_scenario(toml: str, source: str) -> Scenario:
    """A scenario from its TOML text; `source` names it in errors. Raises ConfigError."""
    top = read_table(parse_toml(toml, source), _TOP_KEYS, source=source)
    card_tables = tables(top.pop("card"), "card", source=source)
    program_tables = tables(top.pop("program", None), "program", source=source)
    for name, given, most in (
        ("card", card_tables, _MOST_CARDS),
        ("program", program_tables, _MOST_PROGRAMS),
    ):
        if len(given) > most:
            raise ConfigError(f"{source}: {len(given)} [[{name}]] tables; at most {most} can be simulated")
    cards = tuple(_card(table, index, source) for index, table in enumerate(card_tables))
    if not cards:
        raise ConfigError(f"{source}: needs a [[card]]")
    addresses = [card.pci_address for card in cards]
    for address in addresses:
        if addresses.count(address) > 1:
            raise ConfigError(f"{source}: pci_address {address} is there twice; each card needs its own")
    programs = tuple(_program(table, index, len(cards), source) for index, table in enumerate(program_tables))
    return Scenario(cards=cards, programs=programs, **top)


def _card(table: object, index: int, source: str) -> Card:
    where = f"card {index}"
    given = {"pci_address": f"0000:{index + 1:02x}:00.0"} | read_table(
        table, _CARD_KEYS, source=source, where=where
    )
    if "thermal" in given:
        thermal = read_table(given["thermal"], _THERMAL_KEYS, source=source, where=f"{where}: thermal")
        given["thermal"] = ThermalModel(**thermal)
    if "fan" in given:
        fan = FanModel(**read_table(given["fan"], _FAN_KEYS, source=source, where=f"{where}: fan"))
        if fan.zero_rpm and fan.stop_celsius >= fan.start_celsius:
            raise ConfigError(
                f"{source}: {where}: fan: stop_celsius must be below start_celsius, {fan.start_celsius:g}"
            )
        given["fan"] = fan
    card = Card(**given)
    if card.idle_watts >= card.limit_watts:
        raise ConfigError(f"{source}: {where}: idle_watts must be below limit_watts, {card.limit_watts:g}")
    return card


def _program(table: object, index: int, cards: int, source: str) -> SimulatedProgram:
    where = f"program {index}"
    given = {"card": 0} | read_table(table, _PROGRAM_KEYS, source=source, where=where)
    given["load"] = tuple(LoadStep(at_seconds=at, percent=percent) for at, percent in given["load"])
    program = SimulatedProgram(**given)
    if program.card >= cards:
        raise ConfigError(f"{source}: {where}: card = {program.card}, but the last card is {cards - 1}")
    if program.exit_seconds is not None and program.exit_seconds <= program.start_seconds:
        raise ConfigError(f"{source}: {where}: exit must be later than start")
    if program.repeat_seconds is not None and (
        program.exit_seconds is None or program.repeat_seconds <= program.exit_seconds - program.start_seconds
    ):
        raise ConfigError(f"{source}: {where}: repeat needs an exit that comes before the next start")
    return program
