"""`[[fan]]` tables -> what the user says of single fans of the machine."""

import re

from gpuwhyd.backends.chassis_fans import GPU_DRIVERS, IGNORE, SHARED, FanRule
from gpuwhyd.errors import ConfigError
from gpuwhyd.tables import Key, WrongValueError, kind_of, read_table, shown, text

_MOST_FANS = 99
_MOST_LETTERS = 60
_CHIP = text(
    r"[^\s/]{1,64}", 'a chip\'s name, as `cat /sys/class/hwmon/hwmon*/name` shows it, such as "nct6798"'
)
_GPU = re.compile(r"(?:pci_)?(?:([0-9a-f]{4,8})[:_])?([0-9a-f]{2})[:_]([0-9a-f]{2})[._]([0-7])")


def _chip(value: object) -> str:
    name = _CHIP(value)
    if GPU_DRIVERS.fullmatch(name):
        raise WrongValueError(f"is {shown(name)}, a GPU's own, whose fans are read without being named here")
    return name


def _fan(value: object) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST_FANS:
        return value
    if isinstance(value, str) and (label := value.strip()) and _fits(label):
        return label
    raise WrongValueError(
        f'must be a fan\'s number, 2 for fan2_input, or its label, such as "gpu_fan", not {kind_of(value)}'
    )


def _gpu(value: object) -> str:
    """A GPU's id; its PCI address may be written as lspci (`01:00.0`) or the kernel (`0000:01:00.0`) does."""
    if value in (SHARED, IGNORE):
        return str(value)
    if isinstance(value, str) and (place := _GPU.fullmatch(value.lower())):
        domain, *rest = place.groups()
        return "_".join(("pci", domain or "0000", *rest))
    raise WrongValueError(
        'must be a PCI address such as "0000:01:00.0", the id of a GPU such as "pci_0000_01_00_0", as `gpuwhy doctor` '
        f'shows it, "shared" or "ignore", not {kind_of(value)}'
    )


def _name(value: object) -> str:
    if isinstance(value, str) and (name := value.strip()) and _fits(name):
        return name
    raise WrongValueError(f"must be a text of at most {_MOST_LETTERS} letters, not {kind_of(value)}")


def _fits(text: str) -> bool:
    return text.isprintable() and len(text) <= _MOST_LETTERS


FAN_KEYS = (
    Key(name="chip", field="chip", read=_chip, required=True),
    Key(name="fan", field="fan", read=_fan, required=True),
    Key(name="gpu", field="gpu", read=_gpu, required=True),
    Key(name="name", field="name", read=_name),
)


def read_fans(fan_tables: list[object], source: str) -> tuple[FanRule, ...]:
    """What the user says of each fan, in the order of the file. Raises ConfigError."""
    rules: list[FanRule] = []
    numbers: dict[tuple[str, int | str], int] = {}
    for index, table in enumerate(fan_tables, start=1):
        rule = FanRule(**read_table(table, FAN_KEYS, source=source, where=f"fan {index}"))
        place = (rule.chip, rule.fan.lower() if isinstance(rule.fan, str) else rule.fan)
        if place in numbers:
            raise ConfigError(
                f"{source}: fan {shown(str(rule.fan))} of {shown(rule.chip)} is there twice, as [[fan]] "
                f"{numbers[place]} and {index}; keep one"
            )
        numbers[place] = index
        rules.append(rule)
    return tuple(rules)
