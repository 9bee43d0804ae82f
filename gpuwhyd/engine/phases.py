"""The phases of a fan, and every change between them. Everything that moves a phase is in this table.

A spike is open in SPIKING and SETTLING. It is told as ended when SETTLING is left for QUIET, back-dated to when rest
was reached, because a fan that rises again within the merge time belongs to the same spike.
"""

from enum import StrEnum


class Phase(StrEnum):
    QUIET = "quiet"  # the fan rests
    SPIKING = "spiking"  # up, or coming down
    SETTLING = "settling"  # back at rest, not yet for long enough to call the spike over


class Change(StrEnum):
    ROSE = "rose"  # the fan is clearly above rest, confirmed
    SETTLED = "settled"  # it has been back at rest for the settle time
    RESTED = "rested"  # it has stayed there for the merge time
    FOUND_NEW_REST = "found-new-rest"  # idle and flat for long: this is what rest is now
    VANISHED = "vanished"  # the GPU was removed, or the machine rebooted


TRANSITIONS: dict[tuple[Phase, Change], Phase] = {
    (Phase.QUIET, Change.ROSE): Phase.SPIKING,
    (Phase.SPIKING, Change.SETTLED): Phase.SETTLING,
    (Phase.SPIKING, Change.FOUND_NEW_REST): Phase.QUIET,
    (Phase.SPIKING, Change.VANISHED): Phase.QUIET,
    (Phase.SETTLING, Change.ROSE): Phase.SPIKING,
    (Phase.SETTLING, Change.RESTED): Phase.QUIET,
    (Phase.SETTLING, Change.FOUND_NEW_REST): Phase.QUIET,
    (Phase.SETTLING, Change.VANISHED): Phase.QUIET,
}


def after(phase: Phase, change: Change | None) -> Phase:
    """The phase that follows; the same one when the change means nothing there."""
    return phase if change is None else TRANSITIONS.get((phase, change), phase)
