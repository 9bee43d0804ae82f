"""`dataclass` as in the standard library, for a fifteenth of what it costs to declare one.

Python 3.11 compiles six methods for each frozen dataclass before anybody makes a value of it: 0.8 to 1.3 ms, and ours
together were a third of the daemon's start. Here the standard library makes the class (so `fields`, `replace`, `asdict`
and `match` work), and each method is compiled when it is called for the first time.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:  # so that type checkers know all about it
    from dataclasses import dataclass as dataclass  # noqa: PLC0414 - given on
else:

    def dataclass(
        *, frozen: bool = False, slots: bool = False, kw_only: bool = False, eq: bool = True
    ) -> Callable[[type], type]:
        """The class with these methods; what they mean is in the standard library's documentation.

        Without InitVar, and `repr`, `hash` and `compare` of single fields, which nothing here uses.
        A frozen one cannot be pickled.
        """

        def made(cls: type) -> type:
            # without a docstring the standard library would inspect the signature, to write one
            cls.__doc__ = cls.__doc__ or cls.__name__
            cls = dataclasses.dataclass(cls, init=False, repr=False, eq=False, slots=slots, kw_only=kw_only)
            _add_methods(cls, frozen=frozen, eq=eq)
            return cls

        return made


def _add_methods(cls: Any, *, frozen: bool, eq: bool) -> None:
    # Each stands in for the compiled one until its first call, and puts that in its place.
    def init(self: object, /, *args: object, **named: object) -> None:
        cls.__init__ = compiled = _init(cls, frozen=frozen)
        compiled(self, *args, **named)

    def equal(self: object, other: object) -> Any:
        mine, others = _values_of(cls, "self"), _values_of(cls, "other")
        body = f"return {mine} == {others} if other.__class__ is self.__class__ else NotImplemented"
        cls.__eq__ = compiled = _compiled(cls, "__eq__(self, other)", body, {})
        return compiled(self, other)

    def hashed(self: object) -> int:
        cls.__hash__ = compiled = _compiled(
            cls, "__hash__(self)", f"return hash({_values_of(cls, 'self')})", {}
        )
        return int(compiled(self))

    cls.__init__ = init
    cls.__repr__ = _repr
    if frozen:
        cls.__setattr__ = _refuse_to_set
        cls.__delattr__ = _refuse_to_delete
    if eq:
        cls.__eq__ = equal
        cls.__hash__ = hashed if frozen else None


def _init(cls: Any, *, frozen: bool) -> Callable[..., None]:
    """Sets each field; one that is frozen through its slot, which does not ask `__setattr__`."""
    known: dict[str, object] = {"unset_": dataclasses.MISSING, "set_": object.__setattr__}
    by_place: list[str] = ["self"]
    by_name: list[str] = []
    lines: list[str] = []
    for member in dataclasses.fields(cls):
        name, value, default = member.name, member.name, ""
        if member.default is not dataclasses.MISSING:
            known[f"default_{name}"] = member.default
            default = f"=default_{name}"
        elif member.default_factory is not dataclasses.MISSING:
            known[f"make_{name}"] = member.default_factory
            default, value = "=unset_", f"make_{name}() if {name} is unset_ else {name}"
        if member.init:
            (by_name if member.kw_only else by_place).append(name + default)
        elif default:
            value = f"make_{name}()" if f"make_{name}" in known else f"default_{name}"
        else:
            continue  # whoever made the class sets it
        if not frozen:
            lines.append(f"self.{name} = {value}")
        elif setter := getattr(getattr(cls, name, None), "__set__", None):
            known[f"set_{name}"] = setter
            lines.append(f"set_{name}(self, {value})")
        else:
            lines.append(f"set_(self, {name!r}, {value})")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    parameters = ", ".join([*by_place, *(["*", *by_name] if by_name else [])])
    return _compiled(cls, f"__init__({parameters})", "\n ".join(lines) or "pass", known)


def _compiled(cls: type, head: str, body: str, known: dict[str, object]) -> Callable[..., Any]:
    exec(f"def {head}:\n {body}", known)  # noqa: S102 - as the standard library does, of our own field names
    name = head.partition("(")[0]
    method: Any = known[name]
    method.__qualname__ = f"{cls.__qualname__}.{name}"
    return method  # type: ignore[no-any-return]


def _values_of(cls: Any, who: str) -> str:
    return "(" + "".join(f"{who}.{member.name}, " for member in dataclasses.fields(cls)) + ")"


def _repr(self: Any) -> str:
    shown = ", ".join(f"{member.name}={getattr(self, member.name)!r}" for member in dataclasses.fields(self))
    return f"{type(self).__qualname__}({shown})"


def _refuse_to_set(_self: object, name: str, _value: object) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(_self: object, name: str) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
