"""One card's power, as heat: what it draws above idle, booked in the ledger, and whether it works now."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gpuwhyd.engine.idle_floor import IdleFloor
from gpuwhyd.engine.ledger import Ledger
from gpuwhyd.engine.trace import Trace
from gpuwhyd.model import GpuReading, GpuUse, ProcessExit

UTILIZATION_WATTS = 200.0
"""What full utilisation is taken to draw on a card that tells neither power nor limit: only ratios matter then."""
OVER_PART = 0.2
"""A load is over when the card draws less above idle than this part of the heat that it still holds."""
IMPLAUSIBLE_SCALE = 2.0
OVER_SECONDS = 4.0
"""It is over too when the card has drawn no more than at idle for so long; games pause for a second or two."""
LONGEST_PAUSE_SECONDS = 30.0
PATIENCE = 1.25
"""Work in pulses is work: a card that has gone on after pauses of up to the first is waited for so much longer than those."""
FIRST_STEP_SECONDS = 1.0
"""The first reading is taken for what the card has done so long, so that it too has an explanation."""


@dataclass(slots=True)
class Heat:
    floor: IdleFloor = field(default_factory=IdleFloor)
    ledger: Ledger = field(default_factory=Ledger)
    trace: Trace = field(default_factory=Trace)
    excess_watts: float = 0.0
    working_since: float | None = None
    """Since when the card has drawn clearly more than at idle; `None` while it does not."""
    _low_since: float | None = None
    _pause_seconds: float = 0.0
    """The longest of late after which the card went on."""
    _counted: tuple[float, float] | None = None
    """When the energy counter was last seen to move, and what it said then: (boottime, joules)."""

    @property
    def is_working(self) -> bool:
        return self.working_since is not None

    def trend(self, now: float) -> str:
        """Of the temperature. What it did under a load says nothing of where it goes once the card draws no more than at idle."""
        return self.trace.trend(now, self._low_since)

    def feed(
        self,
        now: float,
        dt: float,
        reading: GpuReading,
        uses: Sequence[GpuUse],
        exits: Sequence[ProcessExit],
        *,
        broken: bool,
        slept: bool,
    ) -> None:
        """One reading. `broken`: no rate over `dt` means anything; `slept`: the machine was suspended in it."""
        watts = self._measure(now, dt, reading, broken=broken)
        self.ledger.book(
            now,
            dt,
            0.0 if slept else self.excess_watts,
            uses,
            utilization_percent=reading.utilization_percent,
            significant_watts=self.floor.significant_watts,
            processes_known=reading.processes is not None,
        )
        self.ledger.exited(exits)
        # of a card that tells neither, nobody knows whether it works: that stays as it was
        if watts is not None or reading.utilization_percent is not None:
            self._follow_work(now, watts)

    def feed_booked(
        self, now: float, dt: float, reading: GpuReading, ledger: Ledger, *, broken: bool
    ) -> None:
        """The same where others have booked who heats: `ledger` is all of it, as of now."""
        watts = self._measure(now, dt, reading, broken=broken)
        self.ledger = ledger
        if watts is not None:
            self._follow_work(now, watts)
        else:
            self.working_since = None

    def feed_nothing(self, now: float, dt: float, exits: Sequence[ProcessExit]) -> None:
        """The card sleeps or is lost: heat only decays."""
        self._counted = self.working_since = None
        self.excess_watts = 0.0
        self.ledger.book(
            now, dt, 0.0, (), utilization_percent=None, significant_watts=self.floor.significant_watts
        )
        self.ledger.exited(exits)

    def interrupted(self) -> None:
        self._counted = None
        self.trace.clear()

    def _measure(self, now: float, dt: float, reading: GpuReading, *, broken: bool) -> float | None:
        watts = self._watts(now, reading, broken=broken)
        self.floor.feed(now, None if broken else dt, reading, watts)
        self.trace.feed(now, 0.0 if broken else dt, watts, reading.temperature_celsius)
        self.excess_watts = self._excess(reading, watts)
        return watts

    def _watts(self, now: float, reading: GpuReading, *, broken: bool) -> float | None:
        """Average power since the energy counter last moved: that misses no burst. Else what the card says now."""
        joules, counted = reading.energy_joules, None if broken else self._counted
        instant = reading.power_watts if reading.power_watts is not None else reading.power_average_watts
        if joules is not None and counted is not None and joules == counted[1]:
            return instant  # a counter coarser than a tick
        self._counted = None if joules is None else (now, joules)
        if joules is None or counted is None or now <= counted[0]:
            return instant
        watts = (joules - counted[1]) / (now - counted[0])
        # a counter that started anew says nothing
        return instant if watts <= 0 or watts > IMPLAUSIBLE_SCALE * self.floor.scale_watts else watts

    def _excess(self, reading: GpuReading, watts: float | None) -> float:
        if watts is not None:
            return self.floor.excess(watts)
        return (reading.utilization_percent or 0.0) / 100 * (reading.power_limit_watts or UTILIZATION_WATTS)

    def _follow_work(self, now: float, watts: float | None) -> None:
        smoothed = self.floor.smoothed_watts
        excess = self.excess_watts if watts is None or smoothed is None else self.floor.excess(smoothed)
        held = self.ledger.heat_watts
        # where ticks are short the smoothed power is late: a draw above all heat that is held is work that begins
        begins = self.excess_watts > max(self.floor.significant_watts, held)
        if self.excess_watts > self.floor.significant_watts:
            if self._low_since is not None:
                pause = now - self._low_since
                self._pause_seconds = (
                    max(pause, 0.8 * self._pause_seconds) if pause <= LONGEST_PAUSE_SECONDS else 0.0
                )
            self._low_since = None
        elif self._low_since is None:
            self._low_since = now
        low = self._low_since is not None and now - self._low_since >= OVER_SECONDS
        pauses = self._low_since is not None and now - self._low_since <= PATIENCE * self._pause_seconds
        if low or (excess <= max(self.floor.significant_watts, OVER_PART * held) and not begins):
            if not pauses:
                self.working_since = None
        elif self.working_since is None:
            self.working_since = now
