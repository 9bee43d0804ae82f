"""Files that people and installers write: configuration, scenarios, the manifest. Taken whole, or one clear line."""

import json
import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gpuwhyd.backends.base import Probe
from gpuwhyd.backends.simulated import SimulatedBackend, SimulatedProcesses
from gpuwhyd.backends.simulated_model import UPTIME_SECONDS
from gpuwhyd.backends.simulated_scenario import parse_scenario
from gpuwhyd.config import SPIKE_KEYS, Settings, parse, sampling_keys
from gpuwhyd.errors import ConfigError, InstallError
from gpuwhyd.install.layout import inside
from gpuwhyd.install.manifest import MANIFEST, read_manifest
from gpuwhyd.model import as_plain
from gpuwhyd.resources import resource
from gpuwhyd.tables import duration, show_duration
from tests.fuzz.mutation import damaged_text, damaged_tree, examples

PIECES = [
    "=", "[", "]", "[[rule]]\n", "[[card]]\n", "[[program]]\n", "{", "}", '"', '"""', "'", "#", ".", ",", "\n", "-", "_",
    "nan", "-inf", "1e999", "1e-400", "9" * 400, "9" * 5000, "0x" + "f" * 500, "true", "1979-05-27", "\\u0000", "\r\n",
    'metric = "power_watts"\n', "above = 1\n", "below = 1\n", 'for = "9999h"\n', '"' + "9" * 90 + 's"', '"0ms"', "[" * 90,
]  # fmt: skip
CONFIG = resource("config/gpuwhyd.toml").read_text()
COMMENTS_TAKEN_OFF = "\n".join(
    line.removeprefix("# ") if "=" in line or "[[" in line else line for line in CONFIG.split("\n")
)
"""The shipped file shows most keys in comments: this sets them all."""
RULES = """
[[rule]]
name = "hot"
metric = "temperature_celsius"
above = 80
clear = 70.5
for = "1min30s"
cooldown = "1h"
severity = "critical"
gpus = ["01:00.0", "pci_0000_02_00_0"]
[[rule]]
name = "overheating"
enabled = false
[[fan]]
chip = "nct6798"
fan = 2
gpu = "0000:01:00.0"
name = "front"
[[fan]]
chip = "asus"
fan = "gpu_fan"
gpu = "shared"
"""
SCENARIOS = [path.read_text() for path in sorted(resource("config/scenarios").glob("*.toml"))]


def assert_one_line(error: Exception) -> None:
    assert str(error).isprintable()
    assert len(str(error)) < 1000


@examples(300)
@given(
    damaged_text(
        [CONFIG, COMMENTS_TAKEN_OFF, RULES, "[sampling]\ninterval = '2s'\n" + RULES], pieces=PIECES, most=3
    )
)
def test_a_damaged_configuration_gives_usable_settings_or_one_line(text: str) -> None:
    try:
        settings = parse(text, "f.toml")
    except ConfigError as error:
        assert_one_line(error)
        return
    json.dumps(as_plain(settings), allow_nan=False)
    sampling = settings.sampling
    assert 0 < sampling.fast_interval_seconds <= sampling.interval_seconds <= sampling.asleep_interval_seconds
    assert settings.engine.spike.settle_percent < settings.engine.spike.rise_percent
    names = [rule.name for rule in settings.engine.rules]
    assert len(set(names)) == len(names)
    for rule in settings.engine.rules:
        assert (rule.above is None) != (rule.below is None)
        assert rule.for_seconds >= 0
        assert rule.cooldown_seconds >= 0


@pytest.mark.parametrize("digits", [18, 309, 400, 4000, 5000])
def test_a_number_without_end_is_one_line(digits: int) -> None:
    for text in (f"[spike]\nrise_percent = {'9' * digits}", RULES.replace("80", "-" + "9" * digits)):
        with pytest.raises(ConfigError) as caught:
            parse(text, "f.toml")
        assert_one_line(caught.value)
    with pytest.raises(ConfigError) as caught:
        parse_scenario(f"seed = {'9' * digits}\n{SCENARIOS[0]}".replace("speed =", "join ="), "s.toml")
    assert_one_line(caught.value)


@examples(120)
@given(st.data())
def test_what_is_written_is_what_holds(data: st.DataObject) -> None:
    """Each key with any value that its reader takes: the settings have that value, and nothing else has moved."""
    table, keys = data.draw(st.sampled_from([("sampling", sampling_keys(None)[:4]), ("spike", SPIKE_KEYS)]))
    wanted: dict[str, object] = {}
    lines = []
    for key in data.draw(st.lists(st.sampled_from(keys), unique_by=lambda key: key.name)):
        milliseconds = data.draw(st.integers(0, 100_000))
        written = f'"{milliseconds}ms"' if "seconds" in key.field else str(milliseconds / 1000)
        lines.append(f"{key.name} = {written}")
        wanted[key.field] = milliseconds / 1000
    try:
        settings = parse(f"[{table}]\n" + "\n".join(lines), "f.toml")
    except ConfigError as error:
        assert_one_line(error)
        return
    found = as_plain(settings.sampling if table == "sampling" else settings.engine.spike)
    default = as_plain(Settings().sampling if table == "sampling" else Settings().engine.spike)
    for name, value in wanted.items():
        assert math.isclose(found[name], value)  # type: ignore[index]
    follow = {"fast_interval_seconds", "asleep_interval_seconds"}
    assert {name for name in found if found[name] != default[name]} <= wanted.keys() | follow  # type: ignore[index, union-attr]


@examples(180)
@given(st.integers(0, 10**8))
def test_a_duration_that_is_shown_can_be_read(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assume(seconds < 1 or seconds == int(seconds) or seconds < 60)
    assert math.isclose(duration(0, 1e9)(show_duration(seconds)), seconds, rel_tol=1e-4)


@examples(180)
@given(damaged_text(SCENARIOS, pieces=PIECES, most=3))
def test_a_damaged_scenario_can_be_played_or_is_one_line(text: str) -> None:
    try:
        scenario = parse_scenario(text, "s.toml")
    except ConfigError as error:
        assert_one_line(error)
        return
    now = UPTIME_SECONDS
    backend, processes = SimulatedBackend(scenario, lambda: now), SimulatedProcesses(scenario, lambda: now)
    assert backend.probe().answer is Probe.READY
    for moment in (0.0, 0.1, 12.0, 12.0, 200.0, 190.0, 260.0):
        now = UPTIME_SECONDS + moment
        readings = backend.read().readings
        json.dumps(as_plain(readings), allow_nan=False)
        assert len({reading.gpu.id for reading in readings}) == len(readings) == len(scenario.cards)
        for reading in readings:
            pids = [process.pid for process in reading.processes or ()]
            assert set(processes.identify_all(pids)) == set(pids)
            assert 0 <= (reading.utilization_percent or 0) <= 100
            assert all(0 <= fan.percent <= 100 for fan in reading.fans if fan.percent is not None)
        processes.exits(now)


WHOLE_MANIFEST = {
    "version": "0.1.0",
    "python": "/usr/bin/python3",
    "files": {"/opt/gpuwhyd/lib/x.py": "ab" * 32, "/etc/systemd/system/gpuwhyd.service": "cd" * 32},
    "links": {"/usr/local/bin/gpuwhy": "/opt/gpuwhyd/bin/gpuwhy"},
    "configuration": {"/etc/gpuwhyd/gpuwhyd.toml": "ef" * 32},
    "directories": ["/opt/gpuwhyd", "/etc/gpuwhyd"],
}


@examples(240)
@given(damaged_tree([WHOLE_MANIFEST]) | damaged_tree([WHOLE_MANIFEST], most=1))
def test_a_damaged_manifest_names_only_files_below_the_root_or_is_an_error(tree: object) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        path = inside(root, MANIFEST)
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(tree))
        try:
            manifest = read_manifest(root)
        except InstallError as error:
            assert_one_line(error)
            return
        assert manifest is not None
        for named in (*manifest.files, *manifest.links, *manifest.configuration, *manifest.directories):
            place = inside(root, Path(named))
            assert place.is_relative_to(root)
            assert ".." not in place.parts
            place.exists()
        for content in (*manifest.files.values(), *manifest.links.values(), *manifest.configuration.values()):
            assert isinstance(content, str)


@pytest.mark.parametrize("path", ["/etc/../../x", "relative", "", "/a\0b", "/a\nb", 5, None, ["/a"]])
def test_a_manifest_with_a_path_that_leads_elsewhere_is_an_error(tmp_path: Path, path: object) -> None:
    manifest = inside(tmp_path, MANIFEST)
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps(WHOLE_MANIFEST | {"directories": ["/opt/gpuwhyd", path]}))
    with pytest.raises(InstallError, match="is damaged"):
        read_manifest(tmp_path)
    if isinstance(path, str):
        manifest.write_text(json.dumps(WHOLE_MANIFEST | {"files": {path: "ab" * 32}}))
        with pytest.raises(InstallError, match="is damaged"):
            read_manifest(tmp_path)
