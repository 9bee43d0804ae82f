"""Who may make gpuwhyd reload: root, the user that the daemon runs as, and whom polkit allows it."""

import os
from collections.abc import Mapping

from gpuwhyd.bus.connection import BusConnection
from gpuwhyd.bus.messages import ERROR_PREFIX, MethodCall
from gpuwhyd.errors import BusError
from gpuwhyd.outputs.dbus_contract import CallError, own_error

RELOAD_ACTION = "org.gpuwhyd1.reload"

_POLKIT = "org.freedesktop.PolicyKit1"
_POLKIT_PATH = "/org/freedesktop/PolicyKit1/Authority"
_POLKIT_INTERFACE = "org.freedesktop.PolicyKit1.Authority"
_NOT_RUNNING = frozenset({f"{ERROR_PREFIX}ServiceUnknown", f"{ERROR_PREFIX}NameHasNoOwner"})
_ALLOW_USER_INTERACTION = 1  # polkit's reference manual, CheckAuthorizationFlags
_ANSWER_SECONDS = 10.0
_PASSWORD_SECONDS = 120.0
"""A person types a password meanwhile."""


async def require_reload_permission(connection: BusConnection, call: MethodCall) -> None:
    """Returns when the caller may reload, else raises CallError NotAuthorized. Without polkit: root only."""
    try:
        credentials = await connection.credentials(call.sender)
    except BusError as error:
        raise _refused(f"who you are could not be found out ({error})") from error
    if credentials.uid in (0, os.geteuid()):
        return
    try:
        allowed = await _polkit_allows(connection, call)
    except BusError as error:
        raise _refused(f"only root may, polkit cannot be asked ({error})") from error
    if not allowed:
        raise _refused(f"polkit does not allow you {RELOAD_ACTION}; try `sudo gpuwhyd reload`")


async def _polkit_allows(connection: BusConnection, call: MethodCall) -> bool:
    try:
        return await _check_authorization(connection, call)
    except BusError as error:
        if error.name not in _NOT_RUNNING:
            raise
    # Calls of ours never start a service; polkit may be installed and not started yet.
    await connection.call(
        "org.freedesktop.DBus",
        "/org/freedesktop/DBus",
        "org.freedesktop.DBus",
        "StartServiceByName",
        "su",
        (_POLKIT, 0),
    )
    return await _check_authorization(connection, call)


async def _check_authorization(connection: BusConnection, call: MethodCall) -> bool:
    # The bus never uses the unique name of the sender again, so polkit cannot mistake somebody else for it.
    subject = ("system-bus-name", {"name": call.sender})
    details: Mapping[str, str] = {}
    flags = _ALLOW_USER_INTERACTION if call.allows_interaction else 0
    answer = await connection.call(
        _POLKIT,
        _POLKIT_PATH,
        _POLKIT_INTERFACE,
        "CheckAuthorization",
        "(sa{sv})sa{ss}us",
        (subject, RELOAD_ACTION, details, flags, ""),
        timeout_seconds=_PASSWORD_SECONDS if call.allows_interaction else _ANSWER_SECONDS,
    )
    match answer:
        case ([bool(is_authorized), bool(), _],):
            return is_authorized
        case _:
            raise BusError(f"polkit answered {answer!r:.200}")


def _refused(why: str) -> CallError:
    return own_error("NotAuthorized", f"Reload is not allowed: {why}")
