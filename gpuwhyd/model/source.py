"""Where each quantity of a GPU is read, and why one is missing: what `gpuwhy doctor` tells."""

from dataclasses import dataclass
from enum import StrEnum


class Lack(StrEnum):
    """Why a quantity has no value."""

    NO_SENSOR = "no-sensor"  # the card or its driver does not offer it
    NO_PERMISSION = "no-permission"
    ASLEEP = "asleep"  # the card sleeps, or is let alone so that it can
    OLD_DRIVER = "old-driver"  # a newer driver, kernel or library offers it
    UNREADABLE = "unreadable"  # it is there, and reading it fails


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSource:
    """One quantity of one GPU from one backend, as of the last read."""

    gpu_id: str
    backend: str
    quantity: str
    """A field's name of GpuReading, or `fan_percent` and `fan_rpm`; empty: all of them, of a card that is not read."""
    source: str
    """The file below the card's sysfs directory, the function of the driver's library, or the place in its program's answer."""
    lack: Lack | None = None
    """`None`: it was read."""
    advice: str = ""
    """What to do about a lack, one line; empty when nothing can be done."""
