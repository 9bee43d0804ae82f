"""A method call -> the member that answers it, with every check that the D-Bus specification asks for.

Objects are a plain table (path -> interface -> what is served), so nothing here knows GPUs. The standard interfaces are
answered here; signatures come from the contract.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpuwhyd.bus.codec import typed
from gpuwhyd.bus.messages import MethodCall
from gpuwhyd.outputs.dbus_contract import (
    GPUS_PATH,
    INTROSPECTABLE,
    OBJECT_MANAGER,
    PEER,
    PROPERTIES,
    bus_error,
    interfaces,
    introspection,
)

Body = Sequence[object]
Answer = Body | Coroutine[Any, Any, Body]
"""At once, or when the coroutine is done."""

_MACHINE_ID_FILES = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One interface of one object."""

    methods: Mapping[str, Callable[[MethodCall], Answer]] = field(default_factory=dict)
    properties: Callable[[], Mapping[str, object]] = dict


Objects = Mapping[str, Mapping[str, Served]]
"""path -> interface name -> what is served there."""


def typed_properties(interface: str, values: Mapping[str, object]) -> dict[str, object]:
    """Property values as the types that the contract promises, for a body slot of type a{sv}."""
    types = interfaces()[interface].properties
    return {name: typed(types[name], value) for name, value in values.items()}


class Dispatcher:
    """`objects` gives what is there now. The object at `manager_path` is the ObjectManager of those below it."""

    def __init__(self, objects: Callable[[], Objects], manager_path: str) -> None:
        self._objects = objects
        self._manager_path = manager_path

    def answer(self, call: MethodCall) -> tuple[str, Answer]:
        """The signature of the answer, and the answer. Raises CallError."""
        name, method = self._find(call)
        takes, gives = interfaces()[name].methods[call.member]
        if call.signature != takes:
            raise bus_error(
                "InvalidArgs",
                f"{name}.{call.member} takes arguments of type '{takes}', not '{call.signature}'",
            )
        return gives, method(call)

    def _find(self, call: MethodCall) -> tuple[str, Callable[[MethodCall], Answer]]:
        served = self._interfaces_at(call.path)
        if served is None:
            if call.interface == PEER and call.member in self._peer:
                return PEER, self._peer[call.member]
            raise bus_error(
                "UnknownObject", f"there is no object {call.path}; {self._manager_path} lists what there is"
            )
        if call.interface is not None and call.interface not in served:
            raise bus_error("UnknownInterface", f"{call.path} has no interface {call.interface}")
        # The header field is optional; the specification leaves the choice to us: the object's own interfaces first.
        candidates = served if call.interface is None else (call.interface,)
        for name in candidates:
            if call.member in served[name].methods:
                return name, served[name].methods[call.member]
        where = call.interface or call.path
        raise bus_error("UnknownMethod", f"{where} has no method {call.member}")

    def _interfaces_at(self, path: str) -> dict[str, Served] | None:
        """The object's own interfaces, then the standard ones; `None` when there is no such object."""
        objects = self._objects()
        own = objects.get(path)
        if own is None and path != GPUS_PATH and not self._children(path):
            return None
        served = dict(own or {})
        if path == self._manager_path:
            served[OBJECT_MANAGER] = Served(methods={"GetManagedObjects": self._get_managed_objects})
        if own:
            served[PROPERTIES] = Served(methods={"Get": self._get, "GetAll": self._get_all, "Set": self._set})
        served[INTROSPECTABLE] = Served(methods={"Introspect": self._introspect})
        served[PEER] = Served(methods=self._peer)
        return served

    def _children(self, path: str) -> list[str]:
        prefix = path.rstrip("/") + "/"
        paths = [*self._objects(), GPUS_PATH]
        return sorted({p.removeprefix(prefix).split("/")[0] for p in paths if p.startswith(prefix)})

    @property
    def _peer(self) -> dict[str, Callable[[MethodCall], Answer]]:
        return {"Ping": lambda _call: (), "GetMachineId": lambda _call: (_machine_id(),)}

    def _introspect(self, call: MethodCall) -> Body:
        names = self._interfaces_at(call.path) or {}
        return (introspection(call.path, names, self._children(call.path)),)

    def _get_managed_objects(self, call: MethodCall) -> Body:
        below = call.path + "/"
        return (
            {
                path: {name: typed_properties(name, served.properties()) for name, served in own.items()}
                for path, own in self._objects().items()
                if path.startswith(below)
            },
        )

    def _get(self, call: MethodCall) -> Body:
        name, member = self._property(call)
        value = self._objects()[call.path][name].properties()[member]
        return (typed(interfaces()[name].properties[member], value),)

    def _get_all(self, call: MethodCall) -> Body:
        own = self._objects()[call.path]
        names = self._interfaces_named(call)
        return (
            {
                k: v
                for name in names
                if name in own
                for k, v in typed_properties(name, own[name].properties()).items()
            },
        )

    def _set(self, call: MethodCall) -> Body:
        name, member = self._property(call)
        raise bus_error("PropertyReadOnly", f"{name}.{member} cannot be set: gpuwhyd only reads")

    def _property(self, call: MethodCall) -> tuple[str, str]:
        member = str(call.body[1])
        for name in self._interfaces_named(call):
            if member in interfaces()[name].properties:
                return name, member
        raise bus_error(
            "UnknownProperty", f"{call.path} has no property {member} in interface '{call.body[0]}'"
        )

    def _interfaces_named(self, call: MethodCall) -> tuple[str, ...]:
        """The interface that the first argument names; an empty name means all (specification, Properties)."""
        there = self._interfaces_at(call.path) or {}
        wanted = str(call.body[0])
        if not wanted:
            return tuple(there)
        if wanted not in there:
            raise bus_error("UnknownInterface", f"{call.path} has no interface {wanted}")
        return (wanted,)


def _machine_id() -> str:
    for file in _MACHINE_ID_FILES:
        try:
            return file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
    raise bus_error("FileNotFound", f"this machine has no {_MACHINE_ID_FILES[0]}")
