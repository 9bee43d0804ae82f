"""The words for states, as D-Bus and the journal show them."""

from enum import StrEnum


class GpuState(StrEnum):
    AWAKE = "awake"
    ASLEEP = "asleep"  # runtime-suspended; nothing but its power state was looked at
    LOST = "lost"  # fell off the bus or needs a reset
    UNKNOWN = "unknown"


class FanMode(StrEnum):
    AUTO = "auto"
    MANUAL = "manual"
    NONE = "none"  # the card has no fan of its own
    UNKNOWN = "unknown"


class BackendState(StrEnum):
    READY = "ready"
    WAITING = "waiting"  # may work later: driver or library not there yet
    ABSENT = "absent"  # will not work on this machine
    ASLEEP = "asleep"  # let go of on purpose, because all its GPUs sleep
    FAILING = "failing"  # should work and does not; retried with backoff


class Severity(StrEnum):
    NOTICE = "notice"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"
