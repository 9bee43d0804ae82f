import math
import os
import subprocess
import sys
from enum import StrEnum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.bus import library
from gpuwhyd.bus.codec import ObjectPath, body_of, clean_text, dict_body, plain, typed
from gpuwhyd.bus.framing import Frame, Framer
from gpuwhyd.bus.header import MessageKind


class Colour(StrEnum):
    RED = "red"


def over_the_wire(signature, *values):
    """What arrives, and its marshalled form, of plain values sent with this signature."""
    data = library.marshal(
        MessageKind.SIGNAL,
        1,
        path="/x",
        interface="a.b",
        member="C",
        signature=signature,
        body=body_of(signature, values),
    )
    framer = Framer(lambda header: 1 << 27, 1 << 16)
    framer.feed(data)
    frame = framer.take()
    assert isinstance(frame, Frame)
    return library.unmarshal_body(frame.header, frame.body)


def arrives(signature, *values):
    return [plain(value) for value in over_the_wire(signature, *values)]


@pytest.mark.parametrize(
    ("value", "signature"),
    [
        (True, "b"),
        (7, "x"),
        (-(2**63), "x"),
        (2**63, "t"),
        (2**64 - 1, "t"),
        (2.5, "d"),
        (math.inf, "d"),
        ("text", "s"),
        (Colour.RED, "s"),
        (ObjectPath("/a/b_1"), "o"),
        (["a", "b"], "as"),
        (("a", "b"), "as"),
        ([], "as"),
        ([ObjectPath("/a")], "ao"),
        ([{"a": 1}, {}], "aa{sv}"),
        ([1, 2], "av"),
        (["a", 1, {"b": [True]}], "av"),
        ({"a": {"b": "c"}}, "a{sv}"),
        ({}, "a{sv}"),
    ],
)
def test_a_plain_value_has_one_type_on_the_bus(value, signature):
    (arrived,) = over_the_wire("v", value)

    assert arrived.signature == signature
    assert plain(arrived) == (list(value) if isinstance(value, tuple) else value)


def test_what_is_not_known_is_left_out():
    assert arrives("a{sv}", {"a": None, "b": 1, "c": {"d": None}, "e": [1, None]}) == [
        {"b": 1, "c": {}, "e": [1]}
    ]


def test_nan_stays_nan():
    (value,) = arrives("d", math.nan)

    assert isinstance(value, float)
    assert math.isnan(value)


def test_a_number_too_large_for_every_integer_type_becomes_a_double():
    assert arrives("v", 2**70) == [float(2**70)]


@pytest.mark.parametrize(
    ("signature", "value", "arrived"),
    [("u", -1, 0), ("u", 2**32, 2**32 - 1), ("t", -5, 0), ("x", 2**64, 2**63 - 1), ("d", 3, 3.0)],
)
def test_numbers_are_clamped_to_the_type_of_their_slot(signature, value, arrived):
    assert arrives(signature, value) == [arrived]


@pytest.mark.parametrize("value", [None, b"bytes", {1, 2}, object(), {"a": b"bytes"}, [b"x"]])
def test_what_has_no_type_is_a_fault_of_the_caller(value):
    with pytest.raises(TypeError):
        body_of("v", (value,))


@pytest.mark.parametrize(
    ("signature", "values"),
    [
        ("s", ()),
        ("s", (1,)),
        ("b", (1,)),
        ("u", ("1",)),
        ("u", (True,)),
        ("o", ("no path",)),
        ("o", ("/a/",)),
        ("as", ("text",)),
        ("(su)", (["a"],)),
        ("a{sv}", ([1],)),
        ("ay", ("x",)),
    ],
)
def test_what_does_not_fit_its_slot_is_a_fault_of_the_caller(signature, values):
    with pytest.raises(TypeError):
        body_of(signature, values)


def test_containers_of_every_kind_arrive():
    value = {"/a": {"org.x": {"Name": "n", "Sizes": [1, 2]}}}

    assert arrives("a{oa{sa{sv}}}a(su)ay(bd)ab", value, [("a", 1)], b"\0\1", (True, 0.5), [False]) == [
        value,
        [["a", 1]],
        b"\0\1",
        [True, 0.5],
        [False],
    ]


def test_a_typed_value_keeps_its_type_in_a_variant():
    (arrived,) = over_the_wire("a{sv}", {"Backends": typed("a{ss}", {"nvml": "ready"})})

    assert arrived["Backends"].signature == "a{ss}"
    assert plain(arrived) == {"Backends": {"nvml": "ready"}}


def test_dict_body_may_be_handed_on_as_a_body():
    assert arrives("a{sv}", dict_body({"a": [{"b": 1}]})) == [{"a": [{"b": 1}]}]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("python3\0train.py\0", "python3 train.py "),
        ("caf\udce9", "caf\ufffd"),
        ("a\x1b[31mb\nc\td", "a [31mb c d"),
        ("abc\u202edef", "abc def"),
        ("naïve 日本 🎮", "naïve 日本 🎮"),
        ("x" * 5000, "x" * 4095 + "…"),
    ],
)
def test_names_that_processes_give_themselves_are_made_harmless(text, clean):
    assert clean_text(text) == clean


def test_an_argument_of_its_own_may_be_long_and_have_lines():
    xml = "<node>\n\t<interface/>\n</node>\n" * 1000

    assert arrives("s", xml) == [xml]


@given(st.text(st.characters(categories=None), max_size=100))
def test_any_text_can_be_sent(text):
    assert arrives("vsa{sv}", text, text, {text: text})[0] == clean_text(text)


def test_marshalling_what_the_bus_forbids_is_a_fault_of_the_caller():
    with pytest.raises(TypeError):
        library.marshal(MessageKind.SIGNAL, 1, path="no path", interface="a.b", member="C")


def test_3000_signatures_do_not_stay_in_memory():
    for number in range(3000):
        signature = "".join("sgub"[number >> shift & 3] for shift in range(0, 12, 2)) * 40
        body = [{"s": "", "g": "", "u": 0, "b": False}[code] for code in signature]
        assert len(over_the_wire(signature, *body)) == 240

    assert library.cached_signatures() <= 140


def test_variants_in_variants_without_end_are_malformed_not_fatal():
    data = library.marshal(
        MessageKind.SIGNAL, 1, path="/x", interface="a.b", member="C", signature="v", body=body_of("v", ("",))
    )
    framer = Framer(lambda header: 1 << 20, 1 << 16)
    framer.feed(data)
    frame = framer.take()
    assert isinstance(frame, Frame)

    with pytest.raises(library.MarshalError):
        library.unmarshal_body(frame.header, b"\1v\0" * 20_000 + b"\1y\0\7")


def test_without_any_library_the_error_says_what_to_install():
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.modules['dbus_fast'] = sys.modules['dbus_next'] = None; import gpuwhyd.bus.library",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )

    assert "install dbus-next" in run.stderr


def test_dbus_next_loads_on_a_python_without_what_it_imports_from_typing():
    run = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            "import typing; del typing.no_type_check_decorator; import gpuwhyd.bus.library as l; print(l.description())",
        ],
        env=os.environ | {"GPUWHYD_DBUS_LIBRARY": "dbus-next"},
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )

    assert run.stdout.startswith("dbus-next")
