import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.client.table import Column, table
from gpuwhyd.client.terminal import Terminal, cut, pad, printable, terminal_of, text_width, wrap

HOSTILE = "\x1b]0;owned\x07\x1b[2Jevil\x9b31m\u202egnp.exe\r\nfake line\x00\ud800"


class TerminalStream(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nothing_that_steers_a_terminal_is_left_of_a_hostile_name():
    shown = printable({"name": [HOSTILE]})["name"][0]
    assert shown.isprintable()
    assert "evil" in shown


@given(st.text(st.characters(exclude_categories=[])))
def test_every_text_becomes_printable_and_stays_so(text):
    shown = printable(text)
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in shown)
    assert printable(shown) == shown


def test_wide_characters_take_two_columns_and_accents_none():
    assert text_width("漢字") == 4
    assert text_width("e\u0301") == 1
    assert pad("漢", 4) == "漢  "
    assert pad("7 W", 5, right=True) == "  7 W"


@given(st.text(max_size=60), st.integers(1, 40))
def test_a_text_that_is_cut_fits(text, columns):
    assert text_width(cut(text, columns)) <= columns


def test_cutting_says_that_something_is_left_out():
    assert cut("ollama-with-a-long-name.service", 10) == "ollama-..."
    assert cut("short", 10) == "short"


def test_a_folded_text_loses_no_word_and_fits():
    text = "GPU 0 (RTX 3070): fan at 57 % for 40 s because ollama.service made 81 % of its heat"
    lines = wrap(text, 30, "  ")
    assert " ".join(line.strip() for line in lines) == text
    assert all(len(line) <= 30 for line in lines)
    assert all(line.startswith("  ") for line in lines[1:])


def test_a_word_longer_than_the_line_stays_whole():
    assert "pci_0000_01_00_0-1764000000000000" in "\n".join(
        wrap("spike pci_0000_01_00_0-1764000000000000 x", 20)
    )


def test_a_pipe_gets_neither_colour_nor_width(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert terminal_of(io.StringIO()) == Terminal(columns=None, color=False)
    assert terminal_of(io.StringIO(), "always").color


@pytest.mark.parametrize(
    ("environment", "color", "expected"),
    [
        ({}, "auto", True),
        ({"NO_COLOR": "1"}, "auto", False),
        ({"NO_COLOR": ""}, "auto", True),
        ({"NO_COLOR": "1"}, "always", True),
        ({"TERM": "dumb"}, "auto", False),
        ({}, "never", False),
    ],
)
def test_a_terminal_is_coloured_as_the_user_wants(monkeypatch, environment, color, expected):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "91")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    terminal = terminal_of(TerminalStream(), color)
    assert terminal.color is expected
    assert terminal.columns == 91


COLUMNS = (
    Column(title="NAME", shrinks_to=6),
    Column(title="SHARE", right=True),
    Column(title="USER", drop=1),
    Column(title="PIDS", drop=2),
)
ROWS = [("ollama.service", "81 %", "ollama", "4242 4243"), ("blender", "9 %", "eva", "812")]


def test_a_table_lines_up_and_leaves_nothing_out_where_there_is_room():
    assert table(COLUMNS, ROWS, Terminal()) == [
        "NAME            SHARE  USER    PIDS",
        "ollama.service   81 %  ollama  4242 4243",
        "blender           9 %  eva     812",
    ]


def test_a_narrow_table_cuts_texts_first_and_then_drops_the_least_important_columns():
    assert table(COLUMNS, ROWS, Terminal(columns=36))[1] == "ollama....   81 %  ollama  4242 4243"
    assert table(COLUMNS, ROWS, Terminal(columns=24))[1] == "ollama...   81 %  ollama"
    assert table(COLUMNS, ROWS, Terminal(columns=14))[1] == "olla...   81 %"


@given(st.integers(1, 60))
def test_no_line_of_a_table_is_wider_than_the_terminal(columns):
    assert all(text_width(line) <= columns for line in table(COLUMNS, ROWS, Terminal(columns=columns)))


def test_a_column_that_no_row_knows_is_left_out():
    assert table(COLUMNS, [("a", "-", "", "1")], Terminal())[0].split() == ["NAME", "PIDS"]
