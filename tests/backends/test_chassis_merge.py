"""A card's reading joined with the fan of the machine that cools it."""

import pytest

from gpuwhyd.backends.merge import merged
from gpuwhyd.model import FanMode, FanReading, GpuIdentity, GpuReading, GpuState

GPU = GpuIdentity(id="pci_0000_01_00_0", name="RTX 3050", vendor="nvidia", uuid="GPU-1")
SAME = GpuIdentity(
    id="pci_0000_01_00_0", name="NVIDIA GPU 10de:25a2", vendor="nvidia", pci_address="0000:01:00.0"
)
FAN = FanReading(index=0, label="gpu_fan", rpm=2600, rpm_is_measured=True)
OWN = FanReading(index=0, percent=30, rpm=0, rpm_is_measured=True)
CHASSIS = GpuReading(gpu=SAME, backend="chassis", state=GpuState.UNKNOWN, fans=(FAN,), fan_mode=FanMode.AUTO)


def card(state: GpuState = GpuState.AWAKE, **values: object) -> GpuReading:
    return GpuReading(**{"gpu": GPU, "backend": "nvml", "state": state, "fan_mode": FanMode.NONE} | values)


def one(*readings: GpuReading) -> GpuReading:
    (reading,) = merged(readings)
    return reading


@pytest.mark.parametrize("state", list(GpuState))
def test_the_card_keeps_its_state_and_name_and_gets_the_fan(state: GpuState) -> None:
    reading = one(card(state, temperature_celsius=60), CHASSIS)
    assert (reading.state, reading.gpu.name, reading.backend) == (state, "RTX 3050", "nvml")
    assert reading.gpu.pci_address == "0000:01:00.0"
    assert reading.temperature_celsius == 60
    assert (reading.fans, reading.fan_mode) == ((FAN,), FanMode.AUTO)


def test_a_card_without_a_fan_does_not_say_how_one_is_regulated() -> None:
    chassis = GpuReading(gpu=SAME, backend="chassis", state=GpuState.UNKNOWN, fans=(FAN,))
    assert one(card(), chassis).fan_mode is FanMode.UNKNOWN
    other = GpuReading(gpu=SAME, backend="amdsmi", fans=(OWN,))
    assert one(card(), other).fan_mode is FanMode.UNKNOWN


def test_the_fan_of_the_machine_holds_over_files_without_a_fan() -> None:
    reading = one(card(fans=(OWN,), fan_mode=FanMode.MANUAL), CHASSIS)
    assert (reading.fans, reading.fan_mode) == ((FAN,), FanMode.AUTO)


def test_without_a_fan_of_the_machine_all_is_as_it_was() -> None:
    worse = GpuReading(gpu=SAME, backend="amdsmi", fans=(FAN,), fan_mode=FanMode.AUTO, power_watts=3)
    reading = one(card(fans=(OWN,), fan_mode=FanMode.MANUAL), worse)
    assert (reading.fans, reading.fan_mode, reading.power_watts) == ((OWN,), FanMode.MANUAL, 3)
    assert one(card(), worse).fans == (FAN,)
    assert one(card(), worse).fan_mode is FanMode.AUTO
    assert one(card(), card(backend="amdsmi")).fan_mode is FanMode.NONE
    assert one(card(GpuState.ASLEEP), worse).fans == ()


def test_a_card_that_no_driver_reads_has_its_fan_at_least() -> None:
    assert one(CHASSIS) is CHASSIS
