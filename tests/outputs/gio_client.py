"""A client as desktop programs are: Gio.DBusObjectManagerClient on the bus at argv[1]. Run by the system's python3.

Writes one JSON object a line: {"event": "listening" | "added" | "removed" | "changed" | "signal" | "gone", ...}. Needs
Debian's package python3-gi, which no virtual environment has.
"""

import json
import math
import sys

from gi.repository import Gio, GLib

NAME, ROOT = "org.gpuwhyd1", "/org/gpuwhyd1"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"


def tell(event: str, **what: object) -> None:
    print(json.dumps({"event": event, **what}), flush=True)


def plain(value: object) -> object:
    """JSON has no NaN."""
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


def properties(proxy: Gio.DBusObjectProxy) -> dict[str, dict[str, object]]:
    """All that is in the client's cache, by interface."""
    return {
        interface.get_interface_name(): {
            name: plain(interface.get_cached_property(name).unpack())
            for name in interface.get_cached_property_names() or ()
        }
        for interface in proxy.get_interfaces()
    }


connection = Gio.DBusConnection.new_for_address_sync(
    sys.argv[1],
    Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION,
    None,
    None,
)
connection.signal_subscribe(
    None,
    OBJECT_MANAGER,
    None,
    None,
    None,
    Gio.DBusSignalFlags.NONE,
    lambda _connection, _sender, path, _interface, member, _body: tell("signal", member=member, path=path),
)
manager = Gio.DBusObjectManagerClient.new_sync(
    connection, Gio.DBusObjectManagerClientFlags.DO_NOT_AUTO_START, NAME, ROOT, None, None, None
)
manager.connect(
    "object-added",
    lambda _manager, proxy: tell("added", path=proxy.get_object_path(), interfaces=properties(proxy)),
)
manager.connect("object-removed", lambda _manager, proxy: tell("removed", path=proxy.get_object_path()))
manager.connect(
    "interface-proxy-properties-changed",
    lambda _manager, proxy, _interface, changed, _invalidated: tell(
        "changed", path=proxy.get_object_path(), properties=changed.unpack()
    ),
)
manager.connect(
    "notify::name-owner",
    lambda *_: tell("gone") if manager.get_name_owner() is None else tell("back"),
)
tell("listening", objects={proxy.get_object_path(): properties(proxy) for proxy in manager.get_objects()})
GLib.MainLoop().run()
