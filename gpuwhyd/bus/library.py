"""The one place that knows which D-Bus library is there, and the few calls of it that are used.

dbus-fast is taken when it is installed, else dbus-next. Both marshal and unmarshal values and nothing more: their
connections lose the bus when its socket is full, hang when it hangs up, and unmarshal whatever anyone sends.
`GPUWHYD_DBUS_LIBRARY` (`dbus-next` or `dbus-fast`) forces one.
"""

import functools
import importlib
import io
import logging
import os
import struct
import sys
import typing
import warnings
from collections.abc import Sequence
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any

from gpuwhyd.bus.body import check_body
from gpuwhyd.bus.header import Header, MessageKind

log = logging.getLogger(__name__)

_MODULES = {"dbus-fast": "dbus_fast", "dbus-next": "dbus_next"}

# The cache of parsed signatures grows with every new one a peer sends: 46 KiB for one of 250 characters in both
# libraries (measured). A bus service meets some dozens in its life.
_MOST_CACHED_SIGNATURES = 128


def _load() -> tuple[str, ModuleType, ModuleType, ModuleType, ModuleType]:
    forced = os.environ.get("GPUWHYD_DBUS_LIBRARY")
    if forced is not None and forced not in _MODULES:
        raise ImportError(f"GPUWHYD_DBUS_LIBRARY={forced}: write dbus-next or dbus-fast")
    if not hasattr(typing, "no_type_check_decorator"):
        # Python 3.15 has removed it; dbus-next 0.2.3 imports it to mark decorators that are not used here.
        typing.no_type_check_decorator = lambda decorator: decorator
    reasons = []
    for distribution in (forced,) if forced else _MODULES:
        module = _MODULES[distribution]
        try:
            with warnings.catch_warnings():
                # dbus-next's own use of what Python 3.13 deprecates; nothing a user of gpuwhyd could mend.
                warnings.simplefilter("ignore", DeprecationWarning)
                constants, message, signature, unmarshaller = _parts(module)
                return distribution, constants, message, signature, unmarshaller
        except ImportError as error:
            reasons.append(f"{distribution}: {error}")
    raise ImportError(f"no D-Bus library; install dbus-next ({'; '.join(reasons)})")


def _parts(package: str) -> list[ModuleType]:
    """Those of the library's modules that are used. The package itself would import all it has, with XML and OpenSSL.

    That takes 17 ms and 5 MiB more (dbus-fast 5.2). So a stand-in, which knows no more than where the files are, is the
    package for as long as this takes; whoever else imports the package gets all of it.
    """
    spec = None if package in sys.modules else PathFinder.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        return _imported(package)
    stand_in = sys.modules[package] = ModuleType(package)
    stand_in.__path__ = spec.submodule_search_locations
    stand_in.__spec__ = spec
    try:
        return _imported(package)
    except Exception as error:  # noqa: BLE001 - whatever a package does that misses itself; it gets all of itself then
        log.info("%s needs all of itself: %s", package, error)
        for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
            del sys.modules[name]
    finally:
        del sys.modules[package]
    return _imported(package)


def _imported(package: str) -> list[ModuleType]:
    importlib.import_module(f"{package}.errors")  # first: dbus-next's message and errors import each other
    importlib.import_module(f"{package}.__version__")  # description's
    parts = ("constants", "message", "signature", "_private.unmarshaller")
    return [importlib.import_module(f"{package}.{part}") for part in parts]


_DISTRIBUTION, _constants, _message, _signature, _unmarshaller = _load()

Variant: Any = _signature.Variant
SignatureTree: Any = _signature.SignatureTree


class MarshalError(ValueError):
    """These bytes are not what their signature says."""


@functools.cache
def description() -> str:
    """The library and its version, such as "dbus-next 0.2.3"."""
    # importlib.metadata would tell it too, with email, zipfile and half a MiB more in its train
    version = importlib.import_module(f"{_MODULES[_DISTRIBUTION]}.__version__").__version__
    return f"{_DISTRIBUTION} {version}"


def marshal(
    kind: MessageKind,
    serial: int,
    *,
    flags: int = 0,
    destination: str | None = None,
    path: str | None = None,
    interface: str | None = None,
    member: str | None = None,
    error_name: str | None = None,
    reply_serial: int | None = None,
    signature: str = "",
    body: Sequence[object] = (),
) -> bytes:
    """The bytes of one message. `body` holds the library's values (see codec). TypeError for what cannot be sent."""
    try:
        message = _message.Message(
            message_type=_constants.MessageType(int(kind)),
            flags=_constants.MessageFlag(flags),
            serial=serial,
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            error_name=error_name,
            reply_serial=reply_serial,
            signature=signature,
            body=list(body),
        )
        return bytes(message._marshall(False))  # noqa: SLF001  both libraries offer marshalling only under this name
    except Exception as error:
        raise TypeError(
            f"cannot send {interface or error_name}.{member or ''}({signature}): {error!r}"
        ) from error


def unmarshal_body(header: Header, body: bytes) -> list[Any]:
    """The values of a message's body, as the library gives them. MarshalError when they do not fit the signature.

    The library is shown a message of the plainest kind around this body, so that nothing else in the header (fields,
    flags and types it does not know) can upset it. Bodies begin at a multiple of 8, so alignment is the same.
    """
    if not header.signature:
        return []
    try:
        check_body(header.signature, body, little_endian=header.little_endian)
    except ValueError as error:
        raise MarshalError(str(error)) from error
    order = "<" if header.little_endian else ">"
    signature = header.signature.encode()
    fields = struct.pack(order + "B3sI", 5, b"\x01u\0", 1)
    fields += struct.pack(order + f"B3sB{len(signature)}sB", 8, b"\x01g\0", len(signature), signature, 0)
    endian = ord("l") if header.little_endian else ord("B")
    prefix = struct.pack(
        order + "BBBBIII", endian, MessageKind.METHOD_RETURN, 0, 1, len(body), 1, len(fields)
    )
    padding = bytes(-len(fields) & 7)
    try:
        message = _unmarshaller.Unmarshaller(io.BytesIO(prefix + fields + padding + body)).unmarshall()
    except Exception as error:  # the libraries raise anything from IndexError to RecursionError
        raise MarshalError(f"body does not fit signature '{header.signature}': {error!r}") from error
    finally:
        _bound_signature_cache()
    if message is None or len(message.body) != len(message.signature_tree.types):
        raise MarshalError(f"body ends before signature '{header.signature}' does")
    return list(message.body)


def cached_signatures() -> int:
    """How many parsed signatures the library keeps now."""
    if _DISTRIBUTION == "dbus-next":
        return len(SignatureTree._cache)  # noqa: SLF001  the library offers no other way to see or bound it
    return int(_signature.get_signature_tree.cache_info().currsize)


def _bound_signature_cache() -> None:
    if cached_signatures() <= _MOST_CACHED_SIGNATURES:
        return
    if _DISTRIBUTION == "dbus-next":
        SignatureTree._cache.clear()  # noqa: SLF001  as above
    else:
        _signature.get_signature_tree.cache_clear()
