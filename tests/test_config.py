"""A configuration gives settings, or one line that names the place and what would be right."""

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpuwhyd.config
from gpuwhyd import config_fans, config_rules
from gpuwhyd.backends.chassis_fans import FanRule
from gpuwhyd.config import LONGEST_INTERVAL_SECONDS, Settings, load, parse
from gpuwhyd.engine.settings import RULE_METRICS, SHIPPED_RULES, Rule
from gpuwhyd.errors import ConfigError
from gpuwhyd.model import Severity
from gpuwhyd.resources import resource
from gpuwhyd.tables import parse_toml


def mistake(toml: str, **options: object) -> str:
    with pytest.raises(ConfigError) as raised:
        parse(toml, "f.toml", **options)
    return str(raised.value)


def rule_named(name: str, settings: Settings) -> Rule:
    return next(rule for rule in settings.engine.rules if rule.name == name)


def test_the_shipped_file_gives_exactly_the_defaults() -> None:
    path = resource("config/gpuwhyd.toml")
    assert load(path) == Settings()
    assert parse("", "f.toml") == Settings()


def test_the_shipped_file_holds_every_key_that_the_code_knows() -> None:
    shipped = parse_toml(resource("config/gpuwhyd.toml").read_text(), "shipped")
    for name, keys in (
        ("sampling", gpuwhyd.config.sampling_keys(None)),
        ("spike", gpuwhyd.config.SPIKE_KEYS),
        ("journal", gpuwhyd.config.JOURNAL_KEYS),
    ):
        assert set(shipped[name]) == {key.name for key in keys}
    in_rules = {key for rule in shipped["rule"] for key in rule}
    assert in_rules == {key.name for key in config_rules.RULE_KEYS}


def test_every_settings_field_has_a_key() -> None:
    settings = Settings()
    for value, keys in (
        (settings.sampling, gpuwhyd.config.sampling_keys(None)),
        (settings.engine.spike, gpuwhyd.config.SPIKE_KEYS),
        (settings.journal, gpuwhyd.config.JOURNAL_KEYS),
    ):
        assert {field.name for field in dataclasses.fields(value)} == {key.field for key in keys}
    rule_fields = {field.name for field in dataclasses.fields(Rule)}
    assert rule_fields | {"enabled"} == {key.field for key in config_rules.RULE_KEYS}


def test_every_metric_has_a_range() -> None:
    assert set(config_rules.METRIC_RANGES) == set(RULE_METRICS)


def test_every_shipped_key_has_a_comment() -> None:
    lines = resource("config/gpuwhyd.toml").read_text().splitlines()
    rules_begin = lines.index("[[rule]]")
    for number, line in enumerate(lines[:rules_begin]):
        if " = " in line and not line.startswith("#"):
            assert lines[number - 1].startswith("#"), line
    comments = [line for line in lines if line.startswith("# ")]
    for key in config_rules.RULE_KEYS:
        assert any(line.startswith(f"# {key.name} ") for line in comments), key.name


def test_what_is_set_is_taken_and_the_rest_stays() -> None:
    settings = parse(
        '[sampling]\ninterval = "500ms"\ndeadline = "1s"\n[spike]\nnew_rest = "1h30min"\nrise_percent = 10\n'
        "[journal]\nobject_pid = false",
        "f.toml",
    )
    assert settings.sampling.interval_seconds == 0.5
    assert settings.sampling.deadline_seconds == 1.0
    assert settings.engine.spike.new_rest_seconds == 5400
    assert settings.engine.spike.rise_percent == 10
    assert settings.engine.spike.rise_rpm == Settings().engine.spike.rise_rpm
    assert settings.journal.object_pid is False


@pytest.mark.parametrize(
    ("interval", "fast_seconds", "asleep_seconds"), [("500ms", 0.5, 10), ("30s", 1, 30), ("2s", 1, 10)]
)
def test_the_other_intervals_follow_one_that_is_set_alone(interval, fast_seconds, asleep_seconds) -> None:
    sampling = parse(f'[sampling]\ninterval = "{interval}"', "f.toml").sampling
    assert (sampling.fast_interval_seconds, sampling.asleep_interval_seconds) == (
        fast_seconds,
        asleep_seconds,
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10), ("1500ms", 1.5), ("2min", 120), ("1h", 3600), ("1h30min", 5400), ("1.5s", 1.5)],
)
def test_durations_are_strings_with_units(text: str, seconds: float) -> None:
    toml = f'[[rule]]\nname = "r"\nmetric = "power_watts"\nabove = 1\nfor = "{text}"'
    assert rule_named("r", parse(toml, "f.toml")).for_seconds == seconds


def test_a_rule_of_your_own_comes_behind_the_shipped_ones() -> None:
    settings = parse(
        '[[rule]]\nname = "hot-memory"\nmetric = "memory_temperature_celsius"\nabove = 95\nclear = 90\n'
        'for = "30s"\nseverity = "error"\ncooldown = "10min"\ngpus = ["01:00.0", "pci_0000_02_00_0"]',
        "f.toml",
    )
    assert settings.engine.rules == (
        *SHIPPED_RULES,
        Rule(
            name="hot-memory",
            metric="memory_temperature_celsius",
            above=95,
            clear=90,
            for_seconds=30,
            severity=Severity.ERROR,
            cooldown_seconds=600,
            gpus=("0000:01:00.0", "pci_0000_02_00_0"),
        ),
    )


def test_a_rule_with_a_shipped_name_takes_its_place() -> None:
    settings = parse('[[rule]]\nname = "overheating"\nmetric = "temperature_celsius"\nabove = 90', "f.toml")
    assert [rule.name for rule in settings.engine.rules] == [rule.name for rule in SHIPPED_RULES]
    assert rule_named("overheating", settings) == Rule(
        name="overheating", metric="temperature_celsius", above=90
    )


def test_a_shipped_rule_can_be_switched_off() -> None:
    settings = parse('[[rule]]\nname = "high-usage"\nenabled = false', "f.toml")
    assert [rule.name for rule in settings.engine.rules] == [rule.name for rule in SHIPPED_RULES[1:]]


def test_a_rule_of_your_own_can_be_switched_off() -> None:
    own = '[[rule]]\nname = "mine"\nenabled = false\nmetric = "power_watts"\nabove = 1'
    assert parse(own, "f.toml") == Settings()


FANS = """
[[fan]]
chip = "nct6798"
fan = 2
gpu = "01:00.0"
name = "front fan"
[[fan]]
chip = "asus"
fan = "gpu_fan"
gpu = "pci_0000_02_00_0"
[[fan]]
chip = "thinkpad"
fan = 2
gpu = "ignore"
"""


def test_fans_of_the_machine_are_given_to_gpus() -> None:
    assert parse(FANS, "f.toml").fans == (
        FanRule(chip="nct6798", fan=2, gpu="pci_0000_01_00_0", name="front fan"),
        FanRule(chip="asus", fan="gpu_fan", gpu="pci_0000_02_00_0"),
        FanRule(chip="thinkpad", fan=2, gpu="ignore"),
    )


def test_every_field_of_a_fan_has_a_key_that_the_shipped_file_explains() -> None:
    assert {field.name for field in dataclasses.fields(FanRule)} == {
        key.field for key in config_fans.FAN_KEYS
    }
    lines = resource("config/gpuwhyd.toml").read_text().splitlines()
    for key in config_fans.FAN_KEYS:
        assert any(line.startswith(f"# {key.name} = ") for line in lines), key.name


def test_the_shipped_example_of_a_fan_is_right() -> None:
    lines = resource("config/gpuwhyd.toml").read_text().splitlines()
    begin = lines.index("# [[fan]]")
    example = "\n".join(
        line.removeprefix("# ") for line in lines[begin : begin + 1 + len(config_fans.FAN_KEYS)]
    )
    assert parse(example, "f.toml").fans == (
        FanRule(chip="nct6798", fan=2, gpu="pci_0000_01_00_0", name="front fan"),
    )


RULE = '[[rule]]\nname = "r"\n'
FAN = "[[fan]]\nchip = 'nct6798'\nfan = 2\n"
A_FANS_GPU = (
    'must be a PCI address such as "0000:01:00.0", the id of a GPU such as "pci_0000_01_00_0", as `gpuwhy doctor` '
    'shows it, "shared" or "ignore"'
)


A_GPU = 'must be a PCI address such as "0000:01:00.0" or a GPU id such as "pci_0000_01_00_0", as `gpuwhy doctor` shows it'


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        (
            "[sampling]\nintervall = '2s'",
            'f.toml: sampling: unknown key "intervall"; did you mean "interval"?',
        ),
        ("[samplin]", 'f.toml: unknown key "samplin"; did you mean "sampling"?'),
        ("x = 1", 'f.toml: unknown key "x"; known are sampling, spike, journal, rule, fan'),
        ("sampling = 2", "f.toml: sampling: must be a table, [sampling], not the number 2"),
        (
            "[sampling]\ninterval = 2",
            'f.toml: sampling: interval must be a duration such as "10s", "500ms", "2min" or "1h30min", not the number 2',
        ),
        (
            "[sampling]\ninterval = '2'",
            'f.toml: sampling: interval must be a duration such as "10s", "500ms", "2min" or "1h30min", not the string "2"',
        ),
        (
            "[sampling]\ninterval = '100ms'",
            'f.toml: sampling: interval must be from 200ms to 1min, not "100ms"',
        ),
        (
            "[sampling]\ninterval = '11min'",
            'f.toml: sampling: interval must be from 200ms to 1min, not "11min"',
        ),
        (
            "[sampling]\nfast_interval = '3s'",
            "f.toml: sampling: fast_interval must not be longer than interval, 2s",
        ),
        (
            "[sampling]\nasleep_interval = '1s'",
            "f.toml: sampling: asleep_interval must not be shorter than interval, 2s",
        ),
        (
            "[sampling]\ndisabled_backends = 'nvml'",
            'f.toml: sampling: disabled_backends must be an array of backend names, not the string "nvml"',
        ),
        (
            "[spike]\nrise_percent = true",
            "f.toml: spike: rise_percent must be a number from 1 to 100 points, not true",
        ),
        (
            "[spike]\nrise_percent = nan",
            "f.toml: spike: rise_percent must be a number from 1 to 100 points, not the number nan",
        ),
        ("[spike]\nrise_percent = inf", "f.toml: spike: rise_percent must be from 1 to 100 points, not inf"),
        (
            "[spike]\nsettle_percent = 8",
            "f.toml: spike: settle_percent must be below rise_percent, 8, or a spike would end as it begins",
        ),
        ("[journal]\nobject_pid = 1", "f.toml: journal: object_pid must be true or false, not the number 1"),
        ("[rule]\nname = 'r'", "f.toml: rule: must be written [[rule]], once for each, not as a table"),
        ("[[rule]]\nmetric = 'power_watts'", "f.toml: rule 1: name is missing"),
        (
            "[[rule]]\nname = ''",
            'f.toml: rule "": name must be a name of letters, digits, "-", "_" and ".", not the string ""',
        ),
        (RULE, 'f.toml: rule "r": metric is missing'),
        (
            "[[rule]]\nname = 'overheating'\nbelow = 1",
            'f.toml: rule "overheating": metric is missing; it replaces the shipped rule of that name as a whole',
        ),
        (
            "[[rule]]\nname = 'over-heating'\nenabled = false",
            'f.toml: rule "over-heating" is not a shipped one; did you mean "overheating"?',
        ),
        (
            RULE + "metric = 'temperature'",
            'f.toml: rule "r": metric is "temperature", which is not known; did you mean "temperature_celsius"?',
        ),
        (
            RULE + "metric = 'power_watts'",
            'f.toml: rule "r": needs above or below, the level at which power_watts is an alert',
        ),
        (
            RULE + "metric = 'power_watts'\nabove = 1\nbelow = 2",
            'f.toml: rule "r": has both above and below; keep one, or write two rules',
        ),
        (
            RULE + "metric = 'utilization_percent'\nabove = 100",
            'f.toml: rule "r": above = 100 makes no sense: utilization_percent goes from 0 to 100 %',
        ),
        (
            RULE + "metric = 'temperature_celsius'\nabove = \"80\"",
            'f.toml: rule "r": above must be a number from -50 to 150 degC, not the string "80"',
        ),
        (
            RULE + "metric = 'fan_percent'\nabove = 50\nclear = true",
            'f.toml: rule "r": clear must be a number from 0 to 200 %, not true',
        ),
        (
            "[spike]\nrise_percent = 2",
            "f.toml: spike: settle_percent (default 3) must be below rise_percent, 2, or a spike would end as it begins",
        ),
        (
            RULE + "metric = 'fan_percent'\nbelow = 0",
            'f.toml: rule "r": below = 0 makes no sense: fan_percent goes from 0 to 200 %',
        ),
        (
            RULE + "metric = 'fan_stalled'\nabove = 1",
            'f.toml: rule "r": above = 1 makes no sense: fan_stalled goes from 0 to 1 (0 is no, 1 is yes)',
        ),
        (
            RULE + "metric = 'power_watts'\nabove = 200\nclear = 201",
            'f.toml: rule "r": clear = 201 must be below or at the threshold, 200, that raises the alert',
        ),
        (
            RULE + "metric = 'temperature_margin_celsius'\nbelow = 3\nclear = 2",
            'f.toml: rule "r": clear = 2 must be above or at the threshold, 3, that raises the alert',
        ),
        (
            RULE + "metric = 'power_watts'\nabove = 200\nclear = -1",
            'f.toml: rule "r": clear = -1 is never reached: power_watts goes from 0 to 5000 W',
        ),
        (
            RULE + "metric = 'power_watts'\nabove = 1\nfor = '25h'",
            'f.toml: rule "r": for must be from 0s to 24h, not "25h"',
        ),
        (
            RULE + "metric = 'power_watts'\nabove = 1\nseverity = 'warn'",
            'f.toml: rule "r": severity is "warn", which is not known; did you mean "warning"?',
        ),
        (
            RULE + "metric = 'power_watts'\nabove = 1\ngpus = ['GPU 0']",
            f'f.toml: rule "r": gpus entry 1 {A_GPU}, not the string "GPU 0"',
        ),
        (
            RULE + "metric = 'power_watts'\nabove = 1\ngpus = ['01:00.0', '0']",
            f'f.toml: rule "r": gpus entry 2 {A_GPU}, not the string "0"',
        ),
        (
            (RULE + "metric = 'power_watts'\nabove = 1\n") * 2,
            'f.toml: rule "r" is there twice, as [[rule]] 1 and 2; rename or remove one',
        ),
        ("[fan]\nchip = 'x'", "f.toml: fan: must be written [[fan]], once for each, not as a table"),
        ("[[fan]]\nchip = 'nct6798'\ngpu = 'shared'", "f.toml: fan 1: fan is missing"),
        (
            FAN + "gpu = 'shared'\nlabel = 'x'",
            'f.toml: fan 1: unknown key "label"; known are chip, fan, gpu, name',
        ),
        (FAN, "f.toml: fan 1: gpu is missing"),
        (FAN + "gpu = 'cpu'", f'f.toml: fan 1: gpu {A_FANS_GPU}, not the string "cpu"'),
        (FAN + "gpu = 0", f"f.toml: fan 1: gpu {A_FANS_GPU}, not the number 0"),
        (
            "[[fan]]\nchip = 'amdgpu'\nfan = 1\ngpu = 'shared'",
            'f.toml: fan 1: chip is "amdgpu", a GPU\'s own, whose fans are read without being named here',
        ),
        (
            "[[fan]]\nchip = 'hwmon 3'\nfan = 1\ngpu = 'shared'",
            (
                "f.toml: fan 1: chip must be a chip's name, as `cat /sys/class/hwmon/hwmon*/name` shows it, such as "
                '"nct6798", not the string "hwmon 3"'
            ),
        ),
        (
            "[[fan]]\nchip = 'nct6798'\nfan = 0\ngpu = 'shared'",
            (
                'f.toml: fan 1: fan must be a fan\'s number, 2 for fan2_input, or its label, such as "gpu_fan", not the '
                "number 0"
            ),
        ),
        (
            FAN + "gpu = 'shared'\nname = ' '",
            'f.toml: fan 1: name must be a text of at most 60 letters, not the string " "',
        ),
        (
            (FAN + "gpu = 'shared'\n") * 2,
            'f.toml: fan "2" of "nct6798" is there twice, as [[fan]] 1 and 2; keep one',
        ),
        ("[sampling]\ninterval = 2s", "f.toml: not valid TOML: "),
        (
            "[sampling]\ninterval = '2s'\n[sampling]\n",
            "f.toml: line 3: [sampling] stands there twice; keep one",
        ),
        (
            "[sampling]\ninterval = '2s'\ninterval = '3s'",
            'f.toml: line 3: "interval" stands there twice; keep one',
        ),
        (
            "[[rule]]\nname = 'r'\n[rule]\nname = 's'",
            "f.toml: line 3: [rule] stands there twice; write [[rule]], as above",
        ),
    ],
)
def test_a_mistake_is_one_line_that_says_what_is_right(toml: str, line: str) -> None:
    said = mistake(toml)
    if line.endswith("TOML: "):
        assert said.startswith(line)
        assert "line 2" in said
    else:
        assert said == line
    assert "\n" not in said


def test_an_unknown_backend_is_a_mistake() -> None:
    toml = '[sampling]\ndisabled_backends = ["nvml", "nvmll"]'
    assert mistake(toml, backends=("nvml", "amdgpu")) == (
        'f.toml: sampling: disabled_backends entry 2 is "nvmll", which is not known; did you mean "nvml"?'
    )
    assert parse(
        toml.replace("nvmll", "amdgpu"), "f", backends=("nvml", "amdgpu")
    ).sampling.disabled_backends == (
        "nvml",
        "amdgpu",
    )


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: there is no such file$"):
        load(tmp_path / "absent.toml")


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "notepad.toml"
    path.write_text('[sampling]\ninterval = "3s"\n', encoding="utf-8-sig")
    assert load(path).sampling.interval_seconds == 3


def test_without_a_file_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpuwhyd.config, "DEFAULT_PATH", tmp_path / "gpuwhyd.toml")
    assert load(None) == Settings()
    (tmp_path / "gpuwhyd.toml").write_text("[journal]\nobject_pid = false")
    assert load(None).journal.object_pid is False


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r": cannot be read: Is a directory$"):
        load(tmp_path)
    (tmp_path / "latin1.toml").write_bytes(b"[sampling]\n# Gr\xf6\xdfe")
    with pytest.raises(ConfigError, match=r"latin1\.toml: line 2: not UTF-8 text; save the file as UTF-8$"):
        load(tmp_path / "latin1.toml")


def as_toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(char):08x}" for char in value) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_toml(key)} = {as_toml(item)}" for key, item in value.items()) + "}"
    return str(value)


KEY_NAMES = st.sampled_from(
    [
        key.name
        for key in (
            *gpuwhyd.config.sampling_keys(None),
            *gpuwhyd.config.SPIKE_KEYS,
            *config_rules.RULE_KEYS,
            *config_fans.FAN_KEYS,
        )
    ]
)
LIKELY_WORDS = st.sampled_from(
    ["2s", "1h30min", "9" * 400 + "s", "high-usage", "warning", "01:00.0", *RULE_METRICS]
)
SCALARS = (
    st.booleans() | st.integers() | st.integers(-5, 105) | st.floats() | LIKELY_WORDS
    | st.text(st.characters(codec="utf-8"), max_size=20)
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEY_NAMES, inner, max_size=3)
)
TABLES = st.dictionaries(KEY_NAMES | st.text(st.characters(codec="utf-8"), max_size=8), VALUES, max_size=5)
FILES = st.dictionaries(
    st.sampled_from(["sampling", "spike", "journal", "rule", "fan"]),
    TABLES | st.lists(TABLES, max_size=3) | VALUES,
    max_size=4,
)


def settings_or_one_line(toml: str) -> None:
    said = "settings"
    try:
        assert isinstance(parse(toml, "f.toml"), Settings)
    except ConfigError as error:
        said = str(error)
    assert said.isprintable()
    assert len(said) < 500


@given(FILES)
def test_any_values_give_settings_or_one_line(file: dict[str, object]) -> None:
    settings_or_one_line("\n".join(f"{name} = {as_toml(value)}" for name, value in file.items()))


@given(st.text(st.characters(codec="utf-8")))
def test_any_text_gives_settings_or_one_line(toml: str) -> None:
    settings_or_one_line(toml)


@given(st.data())
def test_any_damage_to_the_shipped_file_gives_settings_or_one_line(data: st.DataObject) -> None:
    toml = resource("config/gpuwhyd.toml").read_text()
    begin = data.draw(st.integers(0, len(toml)))
    end = data.draw(st.integers(begin, min(len(toml), begin + 20)))
    settings_or_one_line(toml[:begin] + data.draw(st.text(max_size=5)) + toml[end:])


@pytest.mark.parametrize(
    "toml", ["x = " + "[" * 5000, "x = " + "9" * 5000, "x = 1e999", "[" * 2000, "a." * 3000 + "b = 1"]
)
def test_monstrous_text_gives_one_line(toml: str) -> None:
    assert mistake(toml).isprintable()


def test_the_longest_interval_is_well_below_the_patience_of_systemd() -> None:
    """A daemon that rests for longer than WatchdogSec= would be killed for it."""
    unit = (Path(__file__).parents[1] / "systemd/gpuwhyd.service").read_text()
    [minutes] = re.findall(r"^WatchdogSec=([0-9]+)min$", unit, re.MULTILINE)
    assert 60 * int(minutes) >= 2 * LONGEST_INTERVAL_SECONDS
