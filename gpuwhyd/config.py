"""The configuration file -> the settings that the layers below declare.

`config/gpuwhyd.toml` is its manual: every key with its default. The tables below are all that maps a key of the file
to a field of the code; a mistake is a ConfigError of one line that names file, line or key, and what would be right.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpuwhyd.backends.chassis_fans import FanRule
from gpuwhyd.config_fans import read_fans
from gpuwhyd.config_rules import read_rules
from gpuwhyd.engine.settings import EngineSettings, SpikeSettings
from gpuwhyd.errors import ConfigError
from gpuwhyd.outputs.journal import JournalSettings
from gpuwhyd.sampler import SamplingSettings
from gpuwhyd.tables import (
    Key,
    array,
    boolean,
    choice,
    duration,
    number,
    parse_toml,
    read_file,
    read_table,
    show_duration,
    tables,
    text,
)

DEFAULT_PATH = Path("/etc/gpuwhyd/gpuwhyd.toml")
_DAY_SECONDS = 86400.0
LONGEST_INTERVAL_SECONDS = 60.0
"""Half of the unit's WatchdogSec=: with longer pauses systemd would take the daemon for dead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    journal: JournalSettings = field(default_factory=JournalSettings)
    fans: tuple[FanRule, ...] = ()
    """Which fan of the machine cools which GPU, where that does not tell itself."""


def sampling_keys(backends: Collection[str] | None) -> tuple[Key, ...]:
    name = text(r"[a-z][a-z0-9_-]*", "a backend's name") if backends is None else choice(*backends)
    return (
        Key(name="interval", field="interval_seconds", read=duration(0.2, LONGEST_INTERVAL_SECONDS)),
        Key(
            name="fast_interval", field="fast_interval_seconds", read=duration(0.2, LONGEST_INTERVAL_SECONDS)
        ),
        Key(
            name="asleep_interval",
            field="asleep_interval_seconds",
            read=duration(0.2, LONGEST_INTERVAL_SECONDS),
        ),
        Key(name="deadline", field="deadline_seconds", read=duration(0.1, 60)),
        Key(name="disabled_backends", field="disabled_backends", read=array(name, "backend names")),
    )


SPIKE_KEYS = (
    Key(name="rise_percent", field="rise_percent", read=number(1, 100, "points")),
    Key(name="rise_rpm", field="rise_rpm", read=number(50, 10000, "RPM")),
    Key(name="start_rpm", field="start_rpm", read=number(50, 10000, "RPM")),
    Key(name="settle_percent", field="settle_percent", read=number(0, 50, "points")),
    Key(name="settle_rpm", field="settle_rpm", read=number(0, 5000, "RPM")),
    Key(name="settle", field="settle_seconds", read=duration(1, 600)),
    Key(name="merge", field="merge_seconds", read=duration(0, 3600)),
    Key(name="new_rest", field="new_rest_seconds", read=duration(60, _DAY_SECONDS)),
)

JOURNAL_KEYS = (Key(name="object_pid", field="object_pid", read=boolean),)

_TOP_TABLES = ("sampling", "spike", "journal", "rule", "fan")


def load(path: Path | None = None, *, backends: Collection[str] | None = None) -> Settings:
    """The settings of a file; of /etc/gpuwhyd/gpuwhyd.toml, or the defaults where there is none, when not named.

    Raises ConfigError; also when a file that was named does not exist.
    """
    if path is None:
        path = DEFAULT_PATH
        try:
            path.stat()
        except FileNotFoundError:
            return Settings()
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    return parse(read_file(path), str(path), backends=backends)


def parse(toml: str, source: str, *, backends: Collection[str] | None = None) -> Settings:
    """The settings of a TOML text; what it does not set has its default. `source` names it in errors.

    `backends` are the names that `disabled_backends` may hold; not checked when `None`. Raises ConfigError.
    """
    top = parse_toml(toml, source)
    # Which tables there may be; what is in them is read below.
    read_table(
        top, [Key(name=name, field=name, read=lambda value: value) for name in _TOP_TABLES], source=source
    )
    return Settings(
        sampling=_sampling(top.get("sampling", {}), source, backends),
        engine=EngineSettings(
            spike=_spike(top.get("spike", {}), source),
            rules=read_rules(tables(top.get("rule"), "rule", source=source), source),
        ),
        journal=JournalSettings(
            **read_table(top.get("journal", {}), JOURNAL_KEYS, source=source, where="journal")
        ),
        fans=read_fans(tables(top.get("fan"), "fan", source=source), source),
    )


def _sampling(table: object, source: str, backends: Collection[str] | None) -> SamplingSettings:
    given = read_table(table, sampling_keys(backends), source=source, where="sampling")
    settings = SamplingSettings(**_with_intervals_in_order(given))
    normal = settings.interval_seconds
    if settings.fast_interval_seconds > normal:
        raise ConfigError(
            f"{source}: sampling: fast_interval must not be longer than interval, {show_duration(normal)}"
        )
    if settings.asleep_interval_seconds < normal:
        raise ConfigError(
            f"{source}: sampling: asleep_interval must not be shorter than interval, {show_duration(normal)}"
        )
    return settings


def _with_intervals_in_order(given: dict[str, Any]) -> dict[str, Any]:
    """Whoever sets only `interval` need not set the other two: they follow it where their defaults would not fit."""
    defaults = SamplingSettings()
    normal = given.get("interval_seconds", defaults.interval_seconds)
    return {
        "fast_interval_seconds": min(defaults.fast_interval_seconds, normal),
        "asleep_interval_seconds": max(defaults.asleep_interval_seconds, normal),
        **given,
    }


def _spike(table: object, source: str) -> SpikeSettings:
    given = read_table(table, SPIKE_KEYS, source=source, where="spike")
    settings = SpikeSettings(**given)
    pairs = (
        ("settle_percent", settings.settle_percent, "rise_percent", settings.rise_percent),
        ("settle_rpm", settings.settle_rpm, "rise_rpm", settings.rise_rpm),
    )
    for low_name, low, high_name, high in pairs:
        if low >= high:
            by_default = "" if low_name in given else f" (default {low:g})"
            raise ConfigError(
                f"{source}: spike: {low_name}{by_default} must be below {high_name}, {high:g}, or a spike would end as it begins"
            )
    return settings
