"""Cards that are plugged in and pulled out, given to another driver and back, or whose driver is loaded anew."""

from pathlib import Path

import pytest

from gpuwhyd.backends.base import Probe
from gpuwhyd.backends.sysfs_backend import SysfsBackend
from gpuwhyd.errors import BackendError, NoCardError
from gpuwhyd.model import BackendState, GpuReading, GpuState
from tests.backends.nvml_rig import ADDRESS, SECOND, NvmlRig
from tests.backends.sysfs_card import DRIVER, CardSlot, PlainCard


class SysfsRig:
    """A SysfsBackend over a made-up bus with one place; time moves as the test says."""

    def __init__(self, root: Path) -> None:
        self.now = 1000.0
        self.slot = CardSlot(root)
        self.made = 0

        def make_card(sysfs: Path, address: str) -> PlainCard:
            self.made += 1
            return PlainCard(sysfs, address)

        self.backend = SysfsBackend(DRIVER, sysfs=root, make_card=make_card, monotonic=lambda: self.now)

    def reading(self, seconds: float = 2.0) -> GpuReading:
        self.now += seconds
        (reading,) = self.backend.read().readings
        return reading


@pytest.fixture
def rig(tmp_path):
    return SysfsRig(tmp_path)


@pytest.fixture
def nvml(tmp_path):
    with NvmlRig(tmp_path) as rig:
        yield rig


def addresses(rig: NvmlRig) -> list[str | None]:
    return [reading.gpu.pci_address for reading in rig.read().readings]


def test_a_bus_without_a_card_is_told_as_that_and_not_as_a_failure(rig: SysfsRig) -> None:
    found = rig.backend.probe()
    assert (found.answer, found.no_card) == (Probe.LATER, True)
    rig.slot.plug()
    assert rig.backend.probe().answer is Probe.READY
    assert rig.reading().temperature_celsius == 40.0
    rig.slot.pull()
    with pytest.raises(NoCardError, match="no card is left with the kernel driver testgpu"):
        rig.reading()
    assert rig.backend.probe().no_card


def test_a_card_given_to_a_virtual_machine_has_gone_and_comes_back(rig: SysfsRig) -> None:
    rig.slot.plug()
    rig.reading()
    rig.slot.unbind()
    rig.slot.bind("vfio-pci")
    with pytest.raises(NoCardError):
        rig.reading()
    rig.slot.bind()
    rig.slot.probe(celsius=50.0)
    assert rig.reading().temperature_celsius == 50.0


def test_a_driver_that_is_loaded_anew_between_two_ticks_gives_the_card_other_numbers(rig: SysfsRig) -> None:
    rig.slot.plug(celsius=40.0)
    rig.reading()
    rig.reading(seconds=3600.0)
    link = rig.slot.sysfs.root / "bus/pci/drivers" / DRIVER / rig.slot.address
    link.rename(rig.slot.sysfs.root / "gone")  # so that its inode is not used again; sysfs never does that
    rig.slot.unbind()
    rig.slot.bind()
    rig.slot.probe(celsius=60.0)
    assert rig.reading().temperature_celsius == 60.0


def test_a_card_that_its_driver_is_still_at_is_met_anew_when_its_sensors_are_there(rig: SysfsRig) -> None:
    rig.slot.plug()
    rig.slot.unbind()
    rig.slot.bind()
    early = rig.reading()
    assert (early.state, early.temperature_celsius) == (GpuState.AWAKE, None)
    rig.slot.probe(celsius=45.0)
    assert rig.reading().temperature_celsius == 45.0


def test_a_card_that_stays_is_met_once_and_its_devices_are_looked_for_no_more(rig: SysfsRig) -> None:
    rig.slot.plug()
    for _ in range(60):
        rig.reading()
    assert rig.made == 1
    (rig.slot.device / "drm" / "card99").mkdir()
    rig.reading()
    assert rig.made == 1, "after a minute its driver is taken to be done"


def test_nvml_says_that_the_last_card_has_gone_and_takes_up_the_next(nvml: NvmlRig) -> None:
    nvml.add_card()
    assert nvml.backend.probe().answer is Probe.READY
    nvml.read()
    nvml.sysfs.remove(ADDRESS)
    with pytest.raises(NoCardError, match="no NVIDIA card is left on the PCI bus"):
        nvml.read()
    nvml.backend.close()
    found = nvml.backend.probe()
    assert (found.answer, found.no_card) == (Probe.LATER, True)
    nvml.sysfs.add(ADDRESS)
    assert nvml.backend.probe().answer is Probe.READY
    assert nvml.reading().state is GpuState.AWAKE


def test_a_missing_driver_says_nothing_about_the_cards(nvml: NvmlRig) -> None:
    nvml.add_card()
    nvml.driver.unload()
    found = nvml.backend.probe()
    assert (found.answer, found.no_card) == (Probe.LATER, False)


def test_nvml_lets_go_of_a_card_that_is_given_to_a_virtual_machine_and_takes_it_back(nvml: NvmlRig) -> None:
    """The list of PCI devices stays the same all the while."""
    nvml.add_card()
    nvml.add_card(SECOND)
    assert addresses(nvml) == [ADDRESS, SECOND]
    nvml.sysfs.bind(SECOND, "vfio-pci")
    read = nvml.read()
    assert [reading.gpu.pci_address for reading in read.readings] == [ADDRESS]
    assert read.state is BackendState.READY
    nvml.sysfs.bind(ADDRESS, "vfio-pci")
    with pytest.raises(NoCardError):
        nvml.read()
    nvml.sysfs.bind(SECOND, "nvidia")
    assert nvml.backend.probe().answer is Probe.READY
    assert addresses(nvml) == [SECOND]


def test_a_card_without_a_driver_that_another_one_takes_is_nvmls_no_more(nvml: NvmlRig) -> None:
    """While NVIDIA's module is not loaded nothing changes in its own directory."""
    nvml.sysfs.add(ADDRESS, driver=None)
    nvml.driver.unload()
    assert not nvml.backend.probe().no_card
    nvml.sysfs.bind(ADDRESS, "vfio-pci")
    assert nvml.backend.probe().no_card


def test_a_card_that_is_being_unbound_is_let_go_and_not_opened_again(nvml: NvmlRig) -> None:
    """NVIDIA's driver waits until nobody has the card open, and the kernel has taken its link away by then."""
    card, other = nvml.add_card(), nvml.add_card(SECOND)
    nvml.read()
    nvml.sysfs.unbind(SECOND)
    opened = other.attach_count
    for _ in range(3):
        first, second = nvml.read().readings
        assert (first.state, second.state) == (GpuState.AWAKE, GpuState.UNKNOWN)
    assert (other.attached, other.attach_count) == (0, opened)
    nvml.sysfs.unbind(ADDRESS)
    with pytest.raises(BackendError, match="modprobe nvidia"):
        nvml.read()
    nvml.backend.close()
    opened = card.attach_count
    nvml.sysfs.set_module_version("550.54.14")
    found = nvml.backend.probe()
    assert (found.answer, found.no_card) == (Probe.LATER, False)
    assert (card.attached, card.attach_count) == (0, opened)
    nvml.sysfs.bind(ADDRESS, "nvidia")
    assert nvml.backend.probe().answer is Probe.READY
    assert nvml.read().readings[0].state is GpuState.AWAKE


def test_another_device_on_the_bus_does_not_cost_nvmls_session(nvml: NvmlRig) -> None:
    card = nvml.add_card()
    nvml.read()
    nvml.sysfs.add("0000:03:00.0", vendor="0x8086", driver="xhci_hcd")
    nvml.read()
    assert card.attach_count == 1


def test_another_card_at_the_same_address_is_met_anew(nvml: NvmlRig) -> None:
    nvml.add_card(name="NVIDIA GeForce RTX 3070")
    before = nvml.reading().gpu
    device = nvml.sysfs.root / "bus/pci/devices" / ADDRESS
    device.rename(nvml.sysfs.root / "pulled")  # keeps its inode in use
    nvml.driver.remove_cards()
    nvml.add_card(name="NVIDIA RTX A2000", uuid="GPU-other", status="suspended", control="auto")
    assert nvml.reading().gpu.uuid is None, "it sleeps, and nothing of the other card is told of it"
    nvml.sysfs.set_status(ADDRESS, "active")
    after = nvml.reading().gpu
    assert (before.name, after.name, after.uuid) == (
        "NVIDIA GeForce RTX 3070",
        "NVIDIA RTX A2000",
        "GPU-other",
    )


def test_what_a_card_is_is_known_while_it_sleeps(nvml: NvmlRig) -> None:
    nvml.add_card(status="suspended", control="auto")
    (nvml.sysfs.root / "bus/pci/devices" / ADDRESS / "device").write_text("0x2484\n")
    asleep = nvml.reading()
    assert (asleep.state, asleep.gpu.pci_id) == (GpuState.ASLEEP, "10de:2484")
    nvml.sysfs.set_status(ADDRESS, "active")
    assert nvml.reading().gpu.pci_id == "10de:2484"
