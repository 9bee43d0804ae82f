"""Two backends that read the same card give one reading: the better value of each quantity, and never a waker's word."""

from dataclasses import replace

import pytest

from gpuwhyd.backends.merge import merged
from gpuwhyd.model import FanControl, FanMode, FanReading, GpuIdentity, GpuProcess, GpuReading, GpuState

CARD = GpuIdentity(id="pci_0000_0b_00_0", name="Navi 23", vendor="amd", pci_address="0000:0b:00.0")
OTHER = replace(CARD, id="pci_0000_0c_00_0", pci_address="0000:0c:00.0")


def reading(backend: str, gpu: GpuIdentity = CARD, **values: object) -> GpuReading:
    return GpuReading(gpu=gpu, backend=backend, **values)  # type: ignore[arg-type]


def one(*readings: GpuReading) -> GpuReading:
    (result,) = merged(readings)
    return result


def test_the_earlier_backend_holds_and_the_later_completes() -> None:
    both = one(
        reading("better", power_watts=100.0, temperature_celsius=60.0),
        reading("worse", power_watts=90.0, hotspot_celsius=75.0),
    )
    assert (both.backend, both.power_watts) == ("better", 100.0)
    assert (both.temperature_celsius, both.hotspot_celsius) == (60.0, 75.0)


@pytest.mark.parametrize("two_backends", [False, True])
def test_cards_come_in_the_order_of_the_bus_whoever_reads_them(two_backends: bool) -> None:
    """So their place is the number that the sentences of the engine call them by."""
    fan = GpuIdentity(id="chassis_thinkpad", name="ThinkPad fan", vendor="chassis")
    readings = [reading("a", OTHER), reading("chassis", fan), reading("b", CARD)]
    if two_backends:
        readings.append(reading("c", OTHER))
    assert [one.gpu for one in merged(readings)] == [CARD, OTHER, fan]


def test_zero_and_nobody_are_values_that_hold() -> None:
    both = one(
        reading("better", utilization_percent=0.0, processes=(), throttle_reasons=()),
        reading(
            "worse",
            utilization_percent=50.0,
            processes=(GpuProcess(pid=1),),
            throttle_reasons=("power-cap",),
        ),
    )
    assert (both.utilization_percent, both.processes, both.throttle_reasons) == (0.0, (), ())


def test_every_quantity_of_a_reading_can_be_completed() -> None:
    full = reading(
        "worse",
        temperature_limit_celsius=95.0,
        energy_joules=1.0,
        memory_used_bytes=1,
        fan_control=FanControl(zero_rpm_enabled=True),
        can_suspend=False,
        processes=(GpuProcess(pid=1),),
    )
    assert one(reading("better"), full) == replace(full, backend="better")


def test_of_three_the_first_that_knows_completes() -> None:
    assert one(reading("a"), reading("b", power_watts=1.0), reading("c", power_watts=2.0)).power_watts == 1.0


@pytest.mark.parametrize("asleep_first", [True, False])
def test_who_sees_the_card_asleep_is_believed_and_nothing_else_is_told_of_it(asleep_first: bool) -> None:
    asleep = reading("a", state=GpuState.ASLEEP)
    awake = reading("b", power_watts=20.0, temperature_celsius=40.0)
    both = one(*((asleep, awake) if asleep_first else (awake, asleep)))
    assert both == asleep


@pytest.mark.parametrize("state", [GpuState.UNKNOWN, GpuState.LOST])
def test_who_reads_the_card_is_better_than_who_cannot(state: GpuState) -> None:
    both = one(reading("a", state=state), reading("b", power_watts=20.0))
    assert (both.backend, both.state, both.power_watts) == ("b", GpuState.AWAKE, 20.0)


def test_a_card_that_nobody_reads_is_as_the_first_says() -> None:
    assert one(reading("a", state=GpuState.LOST), reading("b", state=GpuState.UNKNOWN)).state is GpuState.LOST


def test_an_identity_is_completed_and_keeps_its_name() -> None:
    both = one(
        reading("a", replace(CARD, driver="amdgpu 6.12")),
        reading("b", replace(CARD, name="AMD Radeon RX 6600", uuid="0x1234", driver="rocm")),
    )
    assert (both.gpu.name, both.gpu.uuid, both.gpu.driver) == ("Navi 23", "0x1234", "amdgpu 6.12")


def test_the_identity_of_a_sleeping_card_is_completed_too() -> None:
    both = one(reading("a", state=GpuState.ASLEEP), reading("b", replace(CARD, uuid="0x1234")))
    assert (both.state, both.gpu.uuid) == (GpuState.ASLEEP, "0x1234")


def test_fans_are_of_one_backend_with_its_mode() -> None:
    fans = (FanReading(index=0, rpm=900.0), FanReading(index=1, rpm=1000.0))
    both = one(
        reading("a", power_watts=20.0), reading("b", fans=fans, fan_mode=FanMode.MANUAL, power_watts=30.0)
    )
    assert (both.fans, both.fan_mode, both.power_watts) == (fans, FanMode.MANUAL, 20.0)


def test_the_better_backends_fans_are_not_mixed_with_anothers() -> None:
    better, worse = FanReading(index=0, rpm=900.0), FanReading(index=0, percent=30.0)
    both = one(reading("a", fans=(better,)), reading("b", fans=(worse,), fan_mode=FanMode.AUTO))
    assert both.fans == (better,)
    assert both.fan_mode is FanMode.AUTO, "how it is controlled is told by who knows"


def test_cards_stay_apart() -> None:
    row = merged(
        [
            reading("a", OTHER),
            reading("a"),
            reading("b", power_watts=1.0),
            reading("b", OTHER, power_watts=2.0),
        ]
    )
    assert [(r.gpu.id, r.power_watts) for r in row] == [(CARD.id, 1.0), (OTHER.id, 2.0)]


def test_readings_of_different_cards_go_through_as_they_are() -> None:
    row = (reading("a"), reading("b", OTHER))
    assert all(before is after for before, after in zip(row, merged(row), strict=True))
