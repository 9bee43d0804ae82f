"""D-Bus addresses: from what a person writes to the unix sockets to try, in order.

The grammar is that of the D-Bus specification, section "Server Addresses". Only local transports are understood: a
system daemon has no business on a bus that comes over the network.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from gpuwhyd.errors import BusError

_HEX_DIGITS = re.compile("[0-9A-Fa-f]{2}")

SYSTEM_BUS_SOCKETS = ("/run/dbus/system_bus_socket", "/var/run/dbus/system_bus_socket")


def socket_names(address: str, environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The unix socket names that `address` stands for, in the order to try them; an abstract one begins with NUL.

    `address` is "system", "session" or a D-Bus address list (`unix:path=/run/x;unix:abstract=y`). Entries of another
    transport are passed over. Raises BusError when nothing usable is left.
    """
    names: list[str] = []
    refusals: list[str] = []
    for entry in filter(None, _expanded(address, environ).split(";")):
        try:
            names.append(_socket_name(entry, environ))
        except BusError as error:
            refusals.append(str(error))
    if not names:
        raise BusError("; ".join(refusals) or "the D-Bus address is empty")
    return tuple(names)


def _expanded(address: str, environ: Mapping[str, str]) -> str:
    if address == "system":
        default = ";".join(f"unix:path={path}" for path in SYSTEM_BUS_SOCKETS)
        return environ.get("DBUS_SYSTEM_BUS_ADDRESS") or default
    if address == "session":
        return environ.get("DBUS_SESSION_BUS_ADDRESS") or "unix:runtime=yes"
    return address


def _socket_name(entry: str, environ: Mapping[str, str]) -> str:
    transport, colon, options = entry.partition(":")
    if not colon:
        raise BusError(
            f"'{entry}' is no D-Bus address; write system, session or for example unix:path=/run/dbus/system_bus_socket"
        )
    if transport != "unix":
        raise BusError(f"D-Bus transport '{transport}' is not supported; only unix: addresses are")
    values = dict(_option(entry, option) for option in options.split(",") if option)
    if values.get("path"):
        return values["path"]
    if values.get("abstract"):
        return "\0" + values["abstract"]
    if values.get("runtime") == "yes":
        runtime = environ.get("XDG_RUNTIME_DIR")
        if not runtime:
            raise BusError("no session bus: neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set")
        return str(Path(runtime) / "bus")
    raise BusError(f"D-Bus address '{entry}' has neither path, abstract nor runtime=yes")


def _option(entry: str, option: str) -> tuple[str, str]:
    key, equals, value = option.partition("=")
    if not equals:
        raise BusError(f"D-Bus address '{entry}': '{option}' has no value")
    return key, _unescaped(entry, value)


def _unescaped(entry: str, value: str) -> str:
    head, *escaped = value.split("%")
    try:
        raw = os.fsencode(head)
        for part in escaped:
            if not _HEX_DIGITS.fullmatch(part[:2]):
                raise BusError(f"D-Bus address '{entry}': '%{part[:2]}' is no escape")
            raw += bytes.fromhex(part[:2]) + os.fsencode(part[2:])
    except UnicodeEncodeError:
        raise BusError(f"D-Bus address {entry!a} holds a character that no file name has") from None
    if b"\0" in raw:
        raise BusError(f"D-Bus address '{entry}' holds a NUL")
    return os.fsdecode(raw)
