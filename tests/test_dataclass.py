"""Our `dataclass` against the standard library's, on the same declarations."""

import dataclasses
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import field
from typing import Any

import pytest

from gpuwhyd.dataclass import dataclass

FORMS: tuple[dict[str, bool], ...] = (
    {"frozen": True, "slots": True, "kw_only": True},
    {"frozen": True, "slots": True},
    {"frozen": True},
    {"frozen": True, "slots": True, "kw_only": True, "eq": False},
    {"slots": True},
    {"slots": True, "kw_only": True},
    {},
)
each_form = pytest.mark.parametrize("form", FORMS, ids=str)


def declared(decorator: Callable[..., Any], form: dict[str, bool]) -> Any:
    class Reading:
        name: str
        watts: float | None = None
        pids: list[int] = field(default_factory=list)

        def doubled(self) -> float:
            return 2 * (self.watts or 0.0)

    return decorator(**form)(Reading)


def outcome(call: Callable[[], object]) -> object:
    """What it gives, or what it raises."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - which one is what is compared
        return type(error)


QUESTIONS: dict[str, Callable[[Any], object]] = {
    "repr": lambda cls: repr(cls(name="a", watts=1.5, pids=[1])),
    "defaults": lambda cls: (cls(name="a").watts, cls(name="a").pids),
    "defaults are its own": lambda cls: cls(name="a").pids is cls(name="a").pids,
    "by place": lambda cls: cls("a", 1.0).watts,
    "too few": lambda cls: cls(),
    "too many": lambda cls: cls(name="a", wats=1),
    "equal": lambda cls: cls(name="a", watts=1) == cls(name="a", watts=1.0),
    "unequal": lambda cls: cls(name="a") == cls(name="a", watts=0.0),
    "of another class": lambda cls: cls(name="a") == ("a", None, []),
    "hash": lambda cls: hash(cls(name="a", pids=())) == hash(cls(name="a", pids=())),
    "hash of what has none": lambda cls: hash(cls(name="a")) and None,
    "hash of the values": lambda cls: len({cls(name="a", pids=()), cls(name="b", pids=())}),
    "set": lambda cls: setattr(cls(name="a"), "name", "b"),
    "set what is no field": lambda cls: setattr(cls(name="a"), "other", "b"),
    "delete": lambda cls: delattr(cls(name="a"), "name"),
    "replace": lambda cls: repr(dataclasses.replace(cls(name="a"), watts=2.0)),
    "asdict": lambda cls: dataclasses.asdict(cls(name="a", pids=[1])),
    "fields": lambda cls: [
        (f.name, f.default, f.default_factory, f.kw_only) for f in dataclasses.fields(cls)
    ],
    "match": lambda cls: cls.__match_args__,
    "methods": lambda cls: cls(name="a", watts=2.0).doubled(),
    "slots": lambda cls: hasattr(cls(name="a"), "__dict__"),
    "qualified name": lambda cls: cls.__init__.__qualname__ if cls(name="a") else "",
}


@each_form
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_class_is_as_the_standard_library_makes_it(form: dict[str, bool], question: str) -> None:
    ours, theirs = declared(dataclass, form), declared(dataclasses.dataclass, form)
    for _ in ("compiled by the first call", "and called again"):
        said = outcome(lambda: QUESTIONS[question](theirs))
        if form.get("slots") and question == "set what is no field" and form.get("frozen"):
            said = dataclasses.FrozenInstanceError  # Python 3.11 says TypeError, which is its bug 46414
        assert outcome(lambda: QUESTIONS[question](ours)) == said


def test_values_that_are_the_same_nan_are_equal() -> None:
    identity = declared(dataclass, FORMS[0])
    assert identity(name="a", watts=math.nan) == identity(name="a", watts=math.nan)


def test_what_is_to_follow_the_fields_follows_them() -> None:
    @dataclass(slots=True)
    class Account:
        watts: float
        doubled: float = field(init=False)
        seen: list[float] = field(init=False, default_factory=list)

        def __post_init__(self) -> None:
            self.doubled = 2 * self.watts

    account = Account(4.0)
    assert (account.doubled, account.seen) == (8.0, [])
    with pytest.raises(TypeError):
        Account(4.0, doubled=9.0)  # type: ignore[call-arg]


def test_fields_of_a_parent_come_first_and_a_child_is_no_equal_of_it() -> None:
    @dataclass(frozen=True, slots=True)
    class Parent:
        first: int

    @dataclass(frozen=True, slots=True)
    class Child(Parent):
        second: int = 2

    assert repr(Child(1)).endswith("Child(first=1, second=2)")
    assert Child(1) == Child(1, 2) != Parent(1)
    assert Parent(1) == Parent(1)  # each has methods of its own, whoever was called first


def test_a_class_without_fields_has_one_value() -> None:
    @dataclass(frozen=True, slots=True)
    class Nothing:
        pass

    assert Nothing() == Nothing()
    assert hash(Nothing()) == hash(Nothing())


def test_nothing_is_compiled_before_there_is_a_value() -> None:
    """That is what makes it cheap. In a process of its own, because here the model is in use."""
    program = (
        "import gpuwhyd.model as model\n"
        "cls = model.GpuIdentity\n"
        "before = cls.__init__\n"
        "cls(id='a', name='b', vendor='c')\n"
        "print(before.__code__.co_filename != '<string>', cls.__init__.__code__.co_filename)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["True", "<string>"]
