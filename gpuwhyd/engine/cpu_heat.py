"""The CPU as one more thing that heats: its power, its programs and its ledger, as a card has them. One for the machine."""

import math
from collections.abc import Mapping

from gpuwhyd.engine.heat import FIRST_STEP_SECONDS, Heat
from gpuwhyd.engine.idle_floor import IdleFloor
from gpuwhyd.engine.ledger import Ledger
from gpuwhyd.engine.saved import optional_number, table
from gpuwhyd.model import GpuIdentity, GpuProcess, GpuReading, GpuUse, HostReading, Snapshot

GAP_SECONDS = 30.0
"""After a longer pause between readings no rate over it means anything."""
FULL_WATTS = 45.0
"""What a CPU without readable energy counters is taken to draw at full use: the commonest power class of laptops that
have a GPU of their own (H series)."""
COOL_CELSIUS = 50.0
COOL_PART = 0.5
"""A CPU that is so cool draws less than its use lets one think; laptops start their fans at about 60 degC."""
_CPU = GpuIdentity(id="cpu", name="CPU", vendor="cpu")


def estimated_watts(host: HostReading) -> float | None:
    """Power from use and temperature, where it cannot be read. The first busy cores draw the most: they get the turbo."""
    if host.cpu_utilization_percent is None:
        return None
    watts = FULL_WATTS * math.sqrt(min(100.0, max(0.0, host.cpu_utilization_percent)) / 100)
    cool = host.cpu_temperature_celsius is not None and host.cpu_temperature_celsius < COOL_CELSIUS
    return watts * COOL_PART if cool else watts


class CpuHeat:
    """Feed it every snapshot. Without a host side (`Snapshot.host`) it only cools down and is not known."""

    def __init__(self) -> None:
        self.heat = Heat()
        self.host: HostReading | None = None
        """As of the last snapshot."""
        self.watts: float | None = None
        self.is_estimated = False
        self._last_at: float | None = None

    @property
    def is_known(self) -> bool:
        """Somebody tells how much it heats."""
        return self.watts is not None

    def feed(self, snapshot: Snapshot) -> None:
        now, host = snapshot.boottime_seconds, snapshot.host
        if host is None and self.host is None and not self.heat.ledger.accounts:
            return  # a machine without a shared fan
        dt = FIRST_STEP_SECONDS if self._last_at is None else max(0.0, now - self._last_at)
        broken = self._last_at is None or snapshot.resumed or dt > GAP_SECONDS
        self._last_at, self.host = now, host
        if broken:
            self.heat.interrupted()
        measured = host.cpu_power_watts if host is not None else None
        self.watts = estimated_watts(host) if host is not None and measured is None else measured
        self.is_estimated = measured is None and self.watts is not None
        if host is None or self.watts is None:
            self.heat.feed_nothing(now, dt, snapshot.exits)
            return
        reading = GpuReading(
            gpu=_CPU,
            backend="host",
            temperature_celsius=host.cpu_temperature_celsius,
            power_watts=self.watts,
            utilization_percent=host.cpu_utilization_percent,
        )
        uses = tuple(
            GpuUse(
                gpu_id=_CPU.id,
                process=on_cpu.process,
                use=GpuProcess(pid=on_cpu.use.pid, kind="cpu", engine_percent=on_cpu.use.cpu_percent),
            )
            for on_cpu in snapshot.host_uses
        )
        self.heat.feed(now, dt, reading, uses, snapshot.exits, broken=broken, slept=snapshot.resumed)

    def saved(self) -> dict[str, object]:
        return {
            "floor": self.heat.floor.saved(),
            "ledger": self.heat.ledger.saved(),
            "last_at": self._last_at,
        }

    @classmethod
    def restored(cls, saved: Mapping[str, object], *, same_boot: bool) -> "CpuHeat":
        """After a reboot only what it draws at idle is known. TypeError, ValueError or KeyError when it is not ours."""
        cpu = cls()
        cpu.heat.floor = IdleFloor.restored(table(saved["floor"]))
        ledger, last_at = Ledger.restored(table(saved["ledger"])), optional_number(saved["last_at"])
        if same_boot:
            cpu.heat.ledger, cpu._last_at = ledger, last_at
        return cpu
