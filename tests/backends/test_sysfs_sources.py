"""What a sysfs backend tells of the sources of cards that it does not read."""

import pytest

from gpuwhyd.backends.sysfs_backend import SysfsBackend
from gpuwhyd.errors import BackendError
from gpuwhyd.model import FieldSource, GpuIdentity, GpuReading, GpuState, Lack
from tests.fake_nvml.sysfs import AMD, FakeSysfs

ADDRESSES = ("0000:03:00.0", "0000:04:00.0")


class Card:
    """Stands for what a driver's own card class does with its files."""

    def __init__(self, address):
        self.identity = GpuIdentity(id=address, name="card", vendor="amd")
        self.fault = ""

    def read(self, now):
        if self.fault:
            raise BackendError(self.fault)
        return GpuReading(gpu=self.identity, backend="amdgpu", power_watts=9.0)

    def is_idle(self, reading):
        return True

    def stirs(self):
        return False

    def sources(self):
        return (
            FieldSource(gpu_id=self.identity.id, backend="amdgpu", quantity="power_watts", source="power1"),
            FieldSource(gpu_id=self.identity.id, backend="amdgpu", quantity="fan_rpm", source="fan1"),
        )


@pytest.fixture
def sysfs(tmp_path):
    sysfs = FakeSysfs(tmp_path)
    for address in ADDRESSES:
        sysfs.add(address, vendor=AMD, driver="amdgpu", control="auto")
    return sysfs


def backend_of(sysfs, cards, now):
    def make_card(_root, address):
        return cards.setdefault(address, Card(address))

    return SysfsBackend("amdgpu", sysfs=sysfs.root, make_card=make_card, monotonic=lambda: now[0])


def told(backend, address):
    return [(source.quantity, source.lack) for source in backend.sources() if source.gpu_id == address]


def test_a_card_that_sleeps_is_told_once_and_another_in_full(sysfs):
    backend = backend_of(sysfs, {}, [0.0])
    sysfs.set_status(ADDRESSES[0], "suspended")
    backend.read()
    assert told(backend, ADDRESSES[0]) == [("", Lack.ASLEEP)]
    assert told(backend, ADDRESSES[1]) == [("power_watts", None), ("fan_rpm", None)]


def test_a_card_that_is_let_alone_is_told_once(sysfs):
    now = [0.0]
    backend = backend_of(sysfs, {}, now)
    for now[0] in (0.0, 61.0, 62.0):
        readings = backend.read().readings
    assert readings[0].state is GpuState.UNKNOWN
    assert told(backend, ADDRESSES[0]) == [("", Lack.ASLEEP)]
    assert "let alone" in backend.sources()[0].advice


def test_a_card_that_cannot_be_read_is_told_once_with_the_reason(sysfs):
    cards = {}
    backend = backend_of(sysfs, cards, [0.0])
    backend.read()
    cards[ADDRESSES[0]].fault = "its registers read as ones: reset it"
    backend.read()
    assert told(backend, ADDRESSES[0]) == [("", Lack.UNREADABLE)]
    assert backend.sources()[0].advice == "its registers read as ones: reset it"
