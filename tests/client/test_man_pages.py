import argparse
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from gpuwhyd import __version__
from gpuwhyd.cli import _parser as gpuwhyd_parser
from gpuwhyd.client.cli import _parser as gpuwhy_parser
from gpuwhyd.config import JOURNAL_KEYS, SPIKE_KEYS, sampling_keys
from gpuwhyd.config_fans import FAN_KEYS
from gpuwhyd.config_rules import RULE_KEYS
from gpuwhyd.engine.settings import RULE_METRICS
from gpuwhyd.resources import resource

PAGES = sorted(resource("man").glob("*.[1-8]"))


def text_of(name: str) -> str:
    """A page's words without its roff."""
    source = resource(f"man/{name}").read_text()
    return source.replace("\\-", "-").replace("\\(dq", '"').replace("\\(aq", "'")


def test_there_is_a_page_for_each_command_and_for_the_configuration():
    assert [page.name for page in PAGES] == ["gpuwhy.1", "gpuwhyd.8", "gpuwhyd.toml.5"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_roff_finds_nothing_to_complain_about(page: Path):
    assert shutil.which("groff"), "apt-get install groff"
    formatted = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-rLL=78n", str(page)], capture_output=True, check=True, text=True
    )
    assert formatted.stderr == ""
    assert "SEE ALSO" in re.sub(r"\x1b\[\d+m|.\x08", "", formatted.stdout)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_are_of_this_version(page: Path):
    assert f'"gpuwhyd {__version__}"' in page.read_text().splitlines()[0]


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Of the parser and of its sub-commands."""
    found = {option for action in parser._actions for option in action.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                found |= {name, *options_of(command)}
    return found


@pytest.mark.parametrize(
    ("name", "parser"),
    [("gpuwhy.1", gpuwhy_parser()), ("gpuwhyd.8", gpuwhyd_parser())],
    ids=["gpuwhy", "gpuwhyd"],
)
def test_every_option_and_command_is_described_and_no_other(name, parser):
    page = text_of(name)
    known = options_of(parser)
    for word in known:
        assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", page), word
    titles = re.findall(r"^\.TP\n(\..*)$", page, re.MULTILINE)
    described = {option for title in titles for option in re.findall(r"--[a-z][a-z.-]*", title)}
    others = {"--dest", "--system"}  # of gdbus
    assert described <= known | others


def test_every_shipped_scenario_is_named():
    for scenario in resource("config/scenarios").glob("*.toml"):
        assert re.search(
            rf"^\.BR? .*{scenario.stem}\b|\( {scenario.stem} ,", text_of("gpuwhyd.8"), re.MULTILINE
        ), scenario


def test_every_exit_code_of_gpuwhy_is_described():
    section = text_of("gpuwhy.1").split(".SH EXIT STATUS")[1].split(".SH")[0]
    assert re.findall(r"^\.B (\d+)$", section, re.MULTILINE) == ["0", "1", "2", "3", "130"]


def test_every_key_of_the_configuration_is_described_with_its_default():
    page = text_of("gpuwhyd.toml.5")
    titles = set(
        " ".join(re.findall(r"^\.TP\n\.BR? (.*)$", page, re.MULTILINE)).replace('" , "', " ").split()
    )
    titles = {title.strip('",') for title in titles}
    keys = [key.name for key in (*sampling_keys(None), *SPIKE_KEYS, *JOURNAL_KEYS, *RULE_KEYS, *FAN_KEYS)]
    assert set(keys) <= titles
    shipped = tomllib.loads(resource("config/gpuwhyd.toml").read_text())
    for table in ("sampling", "spike", "journal"):
        for key, value in shipped[table].items():
            entry = page.split(f"\n.B {key}\n")[1].split(".TP")[0]
            shown = f'"{value}"' if isinstance(value, str) else str(value).lower()
            assert re.search(rf"Default\n?(\.BR)? ?{re.escape(shown)} ?\.", entry), (key, shown, entry)


def test_every_table_metric_and_shipped_rule_of_the_configuration_is_described():
    page = text_of("gpuwhyd.toml.5")
    shipped = tomllib.loads(resource("config/gpuwhyd.toml").read_text())
    for table in shipped:
        assert f"[{table}]" in page
    assert ".SH [[fan]]" in page
    for metric in RULE_METRICS:
        assert re.search(rf"\b{metric}\b", page), metric
    for rule in shipped["rule"]:
        assert f".B {rule['name']}\n" in page


def test_what_the_shipped_configuration_points_to_is_installed_or_said_to_be_elsewhere():
    comments = resource("config/gpuwhyd.toml").read_text()
    for place in re.findall(r"docs/\S+\.md.{0,30}", comments):
        assert "in gpuwhyd's source" in place
    assert "man gpuwhyd.toml" in comments
