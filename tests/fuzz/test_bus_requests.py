"""What people and clients ask for by text: bus addresses, the arguments of GetEvents, method calls of any kind."""

import os
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.bus.address import socket_names
from gpuwhyd.bus.messages import MethodCall
from gpuwhyd.errors import BusError
from gpuwhyd.outputs.dbus_contract import CallError, interfaces
from gpuwhyd.outputs.dbus_dispatch import Dispatcher, Served
from gpuwhyd.outputs.dbus_events import MOST_EVENTS, parse_query
from tests.client import reports
from tests.fuzz.mutation import damaged_text, examples, hostile_values

PATHS = st.binary(min_size=1, max_size=60).filter(lambda path: b"\0" not in path)
PLAIN_BYTES = frozenset(b"-_/.\\*ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
"""Specification, section "Server Addresses": the bytes that need no escape."""


def escaped(path: bytes, always: bool) -> str:
    return "".join(chr(byte) if byte in PLAIN_BYTES and not always else f"%{byte:02x}" for byte in path)


@examples(300)
@given(
    PATHS,
    st.sampled_from(["path", "abstract"]),
    st.booleans(),
    st.sampled_from(["", "guid=00,", "tmpdir=/x,"]),
)
def test_every_socket_name_can_be_written_as_an_address(
    path: bytes, key: str, always: bool, before: str
) -> None:
    (name,) = socket_names(f"unix:{before}{key}={escaped(path, always)}", {})

    assert os.fsencode(name) == (b"\0" if key == "abstract" else b"") + path


ADDRESSES = ["unix:path=/run/dbus/system_bus_socket", "unix:abstract=/tmp/x,guid=ab;unix:runtime=yes", "tcp:host=x,port=1", "system", "session", "unix:path=/a%20b"]  # fmt: skip


@examples(600)
@given(
    damaged_text(
        ADDRESSES, pieces=["%", "%0", "%00", "%  ", "%zz", "%2", ";", ",", "=", ":", "unix:", "\udc80"]
    )
)
def test_any_address_gives_socket_names_or_a_bus_error(address: str) -> None:
    for environment in ({}, {"XDG_RUNTIME_DIR": "/run/user/0", "DBUS_SYSTEM_BUS_ADDRESS": address}):
        try:
            names = socket_names(address, environment)
        except BusError:
            continue
        assert names
        for name in names:
            assert "\0" not in name[1:]
            os.fsencode(name)


@pytest.mark.parametrize(
    "address",
    [
        "unix:path=/a%  b",
        "unix:path=/a%2",
        "unix:path=/\ud800",
        "unix:path=%41\ud800",
        "unix:path=",
        "unix:abstract=",
        "unix:path=%00",
    ],
)
def test_what_is_no_address_is_one_clear_line(address: str) -> None:
    with pytest.raises(BusError, match="D-Bus address"):
        socket_names(address, {})


REPORT = reports.loud_report()
GPU_PATH = "/org/gpuwhyd1/gpus/pci_0000_01_00_0"
OPTION_TEXTS = damaged_text(
    [GPU_PATH, GPU_PATH.replace("01", "7f"), "spike-started", reports.SPIKE_ID, "a=b\nc"]
)


@examples(600)
@given(
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.dictionaries(
        st.sampled_from(["gpu", "event", "spike_id", "other", ""]),
        OPTION_TEXTS | hostile_values(),
        max_size=3,
    ),
    st.booleans(),
)
def test_any_options_of_get_events_are_a_query_or_an_error_for_the_caller(
    since: int, maximum: int, options: Mapping[str, object], started: bool
) -> None:
    try:
        query = parse_query((since, maximum, options), REPORT if started else None)
    except CallError as error:
        assert error.name in {"org.gpuwhyd1.Error.InvalidArgument", "org.gpuwhyd1.Error.UnknownGpu"}  # noqa: PT017 - either is right
        return
    assert 1 <= query.maximum <= MOST_EVENTS
    assert query.since_usec == since
    assert (query.event, query.spike_id) == (options.get("event"), options.get("spike_id"))
    assert (query.gpu is None) == ("gpu" not in options)


MANAGER_PATH = "/org/gpuwhyd1"
SERVED = {
    MANAGER_PATH: {
        "org.gpuwhyd1.Manager": Served(
            methods={"Refresh": lambda _call: ()}, properties=lambda: {"Version": "1", "FanActive": True}
        )
    },
    GPU_PATH: {"org.gpuwhyd1.Gpu": Served(properties=lambda: {"FanPercent": 1.0})},
}
NAMES = sorted(interfaces())
MEMBERS = [
    "Refresh",
    "Get",
    "GetAll",
    "Set",
    "Introspect",
    "Ping",
    "GetManagedObjects",
    "GetMachineId",
    "Nothing",
]
ARGUMENTS = [
    ("", ()),
    ("s", ("a",)),
    ("ss", ("", "Version")),
    ("ssv", ("org.gpuwhyd1.Manager", "Version", 1)),
]


@examples(600)
@given(
    damaged_text([MANAGER_PATH, GPU_PATH, "/", "/org", "/org/gpuwhyd1/gpus"], pieces=["/", "//"], most=1),
    st.none() | damaged_text(NAMES, most=1),
    damaged_text(MEMBERS, most=1),
    st.sampled_from(ARGUMENTS)
    | st.sampled_from([("ss", (name, "Version")) for name in NAMES])
    | st.sampled_from([("s", (name,)) for name in NAMES]),
)
def test_any_call_is_answered_or_refused_by_name(
    path: str, interface: str | None, member: str, arguments: tuple[str, tuple[object, ...]]
) -> None:
    signature, body = arguments
    call = MethodCall(
        sender=":1.1",
        path=path,
        interface=interface,
        member=member,
        signature=signature,
        body=body,
        serial=1,
        wants_reply=True,
    )
    try:
        gives, answer = Dispatcher(lambda: SERVED, MANAGER_PATH).answer(call)
    except CallError as error:
        assert error.name.startswith(("org.freedesktop.DBus.Error.", "org.gpuwhyd1.Error."))  # noqa: PT017 - as above
        return
    assert isinstance(answer, tuple)
    assert bool(gives) == bool(answer)
