import pytest

from gpuwhyd.client.ask import AskError
from gpuwhyd.client.cli import main, parse
from tests.client.reports import SPIKE_ID


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ([], "why"),
        (["--json"], "why"),
        (["status"], "status"),
        (["--json", "status"], "status"),
        (["top", "--once"], "top"),
        (["--bus", "session", "watch", "--format", "waybar"], "watch"),
        (["history", "--since", "2h", "--limit", "5"], "history"),
        (["history", "--since", "-2h"], "history"),
        (["--since=-2h", "history", "--all"], "history"),
        (["doctor"], "doctor"),
        (["report", "--json", "--gpu", "0"], "report"),
        ([SPIKE_ID], "spike"),
        (["chassis_dell-1764000000000000", "--json"], "spike"),
    ],
)
def test_the_first_word_is_a_command_or_a_spike(arguments, command):
    assert parse(arguments).command == command


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fan"], "Commands: status, top, watch, history, doctor, report"),
        (["pci_0000_01_00_0"], "gpuwhy --gpu pci_0000_01_00_0"),
        (["status", "top"], "nrecognized arguments: top"),
        (["--colour"], "--colour"),
        (["--color", "blue"], "auto"),
        (["--since", "2h"], "--since belongs to gpuwhy history"),
        (["history", "--since", "soon"], "yesterday"),
        (["history", "--limit", "0"], "from 1 to 1000"),
        (["history", "--limit", "many"], "from 1 to 1000"),
        (["doctor", "--exit-code"], "--exit-code belongs to gpuwhy, gpuwhy status and gpuwhy top."),
        (["history", "--since", "--json"], "--since: expected one argument"),
        (["status", "--all"], "--all belongs to gpuwhy history"),
        (["status", "--once"], "--once belongs to gpuwhy top"),
        (["status", "--format", "waybar"], "--format belongs to gpuwhy watch"),
        ([SPIKE_ID, "--gpu", "0"], "--gpu belongs to"),
        (["watch", "--json", "--format", "waybar"], "give one of them"),
        (["--bus"], "--bus"),
    ],
)
def test_a_wrong_command_line_is_one_line_that_says_what_is_right(arguments, says, capsys):
    assert main(arguments) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.count("\n") == 1
    assert says in written.err


def test_the_bus_is_that_of_the_option_then_of_the_environment_then_the_system(monkeypatch):
    monkeypatch.delenv("GPUWHYD_BUS", raising=False)
    assert parse([]).bus == "system"
    monkeypatch.setenv("GPUWHYD_BUS", "session")
    assert parse([]).bus == "session"
    assert parse(["--bus", "unix:path=/x"]).bus == "unix:path=/x"


def test_hostile_words_on_the_command_line_are_not_written_back(capsys):
    assert main(["\x1b[2J\x07"]) == 2
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize("asked", ["--help", "--version"])
def test_help_and_version_end_well(asked, capsys):
    with pytest.raises(SystemExit) as ended:
        main([asked])
    assert ended.value.code == 0
    assert "gpuwhy" in capsys.readouterr().out


def test_a_bus_that_is_not_there_is_named_with_what_to_do(capsys):
    assert main(["--bus", "unix:path=/nonexistent/bus"]) == 2
    error = capsys.readouterr().err
    assert "/nonexistent/bus" in error
    assert "--bus takes system, session or the address" in error
    assert error.count("\n") == 1


def test_parse_raises_what_main_shows():
    with pytest.raises(AskError, match="no command and no spike id"):
        parse(["nonsense"])
