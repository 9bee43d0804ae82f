import pytest

from gpuwhyd.bus.address import socket_names
from gpuwhyd.errors import BusError


@pytest.mark.parametrize(
    ("address", "environ", "names"),
    [
        ("unix:path=/run/x", {}, ("/run/x",)),
        ("unix:abstract=/tmp/y,guid=0123", {}, ("\0/tmp/y",)),
        ("unix:guid=1,path=/a%20b%2c%3bc", {}, ("/a b,;c",)),
        ("unix:path=/caf%c3%a9", {}, ("/café",)),
        ("unix:path=/a;tcp:host=localhost,port=1;unix:path=/b;", {}, ("/a", "/b")),
        ("system", {}, ("/run/dbus/system_bus_socket", "/var/run/dbus/system_bus_socket")),
        ("system", {"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/s"}, ("/s",)),
        ("session", {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/u", "XDG_RUNTIME_DIR": "/run/user/1"}, ("/u",)),
        ("session", {"XDG_RUNTIME_DIR": "/run/user/1"}, ("/run/user/1/bus",)),
        ("unix:runtime=yes", {"XDG_RUNTIME_DIR": "/run/user/2"}, ("/run/user/2/bus",)),
    ],
)
def test_an_address_names_its_sockets_in_order(address, environ, names):
    assert socket_names(address, environ) == names


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("", "empty"),
        ("/run/dbus/system_bus_socket", "no D-Bus address"),
        ("tcp:host=localhost", "not supported"),
        ("unix:", "neither path"),
        ("unix:path", "no value"),
        ("unix:path=/a%2", "no escape"),
        ("unix:path=/a%zz", "no escape"),
        ("unix:path=/a%00", "NUL"),
        ("session", "XDG_RUNTIME_DIR"),
    ],
)
def test_an_address_that_cannot_work_says_why(address, complaint):
    with pytest.raises(BusError, match=complaint):
        socket_names(address, {})
