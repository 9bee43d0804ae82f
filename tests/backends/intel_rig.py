"""Made-up Intel cards below a sysfs of their own, and a clock that moves only when a test says so."""

import errno
import os
from pathlib import Path

import pytest

from gpuwhyd.backends.base import BackendReadings
from gpuwhyd.backends.intel_card import IntelCard
from gpuwhyd.backends.sysfs_backend import SysfsBackend
from gpuwhyd.model import FieldSource, GpuReading
from tests.samples import bind

DISCRETE = "0000:03:00.0"
INTEGRATED = "0000:00:02.0"

I915_FILES = {
    "hwmon/hwmon2/name": "i915",
    "hwmon/hwmon2/energy1_input": "1000000000",
    "hwmon/hwmon2/fan1_input": "1200",
    "hwmon/hwmon2/temp1_input": "51000",
    "hwmon/hwmon2/power1_max": "190000000",
    "hwmon/hwmon2/power1_rated_max": "200000000",
    "hwmon/hwmon3/name": "i915_gt0",
    "hwmon/hwmon3/energy1_input": "500000000",
    "drm/card1/gt/gt0/rps_act_freq_mhz": "600",
    "drm/card1/gt/gt0/rps_RP0_freq_mhz": "2400",
    "drm/card1/gt/gt0/rps_RPn_freq_mhz": "300",
    "drm/card1/gt/gt0/rc6_residency_ms": "5000",
    "drm/card1/gt/gt0/throttle_reason_status": "0",
    "drm/card1/gt/gt0/throttle_reason_pl1": "0",
    "drm/card1/gt/gt0/throttle_reason_pl4": "0",
    "drm/card1/gt/gt0/throttle_reason_thermal": "0",
    "drm/card1/gt/gt0/throttle_reason_prochot": "0",
    "drm/card1/gt/gt0/throttle_reason_vr_tdc": "0",
}
XE_FILES = {
    "hwmon/hwmon5/name": "xe",
    "hwmon/hwmon5/energy1_input": "0",
    "hwmon/hwmon5/energy1_label": "card",
    "hwmon/hwmon5/energy2_input": "1000000000",
    "hwmon/hwmon5/energy2_label": "pkg",
    "hwmon/hwmon5/fan1_input": "0",
    "hwmon/hwmon5/fan2_input": "800",
    "hwmon/hwmon5/temp2_input": "46000",
    "hwmon/hwmon5/temp2_label": "pkg",
    "hwmon/hwmon5/temp3_input": "48000",
    "hwmon/hwmon5/temp3_label": "vram",
    "hwmon/hwmon5/power1_label": "card",
    "hwmon/hwmon5/power1_max": "0",
    "hwmon/hwmon5/power2_label": "pkg",
    "hwmon/hwmon5/power2_max": "120000000",
    "tile0/gt0/freq0/act_freq": "400",
    "tile0/gt0/freq0/rp0_freq": "2850",
    "tile0/gt0/freq0/rpn_freq": "400",
    "tile0/gt0/freq0/throttle/status": "0",
    "tile0/gt0/freq0/throttle/reason_pl2": "0",
    "tile0/gt0/freq0/throttle/reason_thermal": "0",
    "tile0/gt0/gtidle/idle_residency_ms": "5000",
    "tile0/gt1/freq0/act_freq": "1200",
    "tile0/gt1/freq0/rp0_freq": "1500",
    "tile0/gt1/freq0/rpn_freq": "400",
    "tile0/gt1/gtidle/idle_residency_ms": "5000",
}
FILES = {"i915": I915_FILES, "xe": XE_FILES}
RESTING = {
    "i915": ("drm/card1/gt/gt0/rc6_residency_ms",),
    "xe": ("tile0/gt0/gtidle/idle_residency_ms", "tile0/gt1/gtidle/idle_residency_ms"),
}


def plug(
    sysfs: Path,
    driver: str,
    address: str,
    files: dict[str, str],
    *,
    product: str = "0x56a0",
    control: str = "on",
    status: str = "active",
) -> Path:
    """A card with these files, bound to its driver; gives its directory."""
    device = sysfs / "bus/pci/devices" / address
    configuration = {"vendor": "0x8086", "device": product, "class": "0x030000"}
    power = {"power/runtime_status": status, "power/control": control}
    for name, text in {**files, **configuration, **power}.items():
        _write(device, name, text)
    bind(sysfs, address, driver)
    return device


def _write(device: Path, name: str, text: str) -> None:
    path = device / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((text + "\n").encode(errors="surrogatepass"))


class IntelRig:
    """One card and its backend. Each read happens `seconds` after the last one; sleeping takes its time too."""

    def __init__(
        self,
        root: Path,
        driver: str,
        files: dict[str, str] | None = None,
        *,
        address: str = DISCRETE,
        product: str = "0x56a0",
        control: str = "on",
        release: str = "6.1.0-test",
        monkeypatch: pytest.MonkeyPatch | None = None,
    ) -> None:
        self.root = root
        self.driver = driver
        self.address = address
        self.device = root / "bus/pci/devices" / address
        self.time = 1000.0
        self.naps: list[float] = []
        self.on_nap: dict[str, str | None] = {}
        """Files as they are after a nap; `None`: gone."""
        self._unreadable: dict[str, int] = {}
        plug(
            root, driver, address, FILES[driver] if files is None else files, product=product, control=control
        )
        self.procfs = root / "proc"
        (self.procfs / "sys/kernel").mkdir(parents=True)
        (self.procfs / "sys/kernel/osrelease").write_text(release + "\n")
        self.backend = SysfsBackend(driver, sysfs=root, make_card=self._card, monotonic=lambda: self.time)
        if monkeypatch is not None:
            self._watch_opens(monkeypatch)

    def _card(self, sysfs: Path, address: str) -> IntelCard:
        return IntelCard(
            self.driver, sysfs, address, procfs=self.procfs, sleep=self._nap, monotonic=lambda: self.time
        )

    def _nap(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.time += seconds
        for name, text in self.on_nap.items():
            self.remove(name) if text is None else self.write(name, text)

    def _watch_opens(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What no file of a test's can do: answer with an error of the driver's."""
        real = os.open

        def fake(path: str, flags: int, *rest: object) -> int:
            code = self._unreadable.get(str(path).removeprefix(f"{self.device}/"))
            if code is not None:
                raise OSError(code, os.strerror(code), path)
            return real(path, flags, *rest)

        monkeypatch.setattr(os, "open", fake)

    def fail(self, name: str, code: int = errno.EIO) -> None:
        """Reading this file gives this error from now on; 0 mends it. Needs `monkeypatch`."""
        if code:
            self._unreadable[name] = code
        else:
            self._unreadable.pop(name, None)

    def write(self, name: str, text: str) -> None:
        _write(self.device, name, text)

    def write_all(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            self.write(name, text)

    def remove(self, name: str) -> None:
        (self.device / name).unlink()

    def read(self, seconds: float = 2.0) -> BackendReadings:
        self.time += seconds
        return self.backend.read()

    def reading(self, seconds: float = 2.0) -> GpuReading:
        (reading,) = self.read(seconds).readings
        return reading

    def rest(self, seconds: float) -> BackendReadings:
        """A read after so much time in which every GT rested."""
        for name in RESTING[self.driver]:
            self.write(name, str(int((self.time + seconds) * 1000)))
        return self.read(seconds)

    def source(self, quantity: str) -> FieldSource:
        (found,) = (source for source in self.backend.sources() if source.quantity == quantity)
        return found
