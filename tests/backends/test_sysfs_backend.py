"""What all cards that are read through sysfs share: attributes, coming and going, failing, being let alone."""

import errno
import logging

import pytest

from gpuwhyd.backends.base import Probe
from gpuwhyd.backends.sysfs import Attributes
from gpuwhyd.backends.sysfs_backend import SysfsBackend
from gpuwhyd.errors import BackendError, NoCardError
from gpuwhyd.kernel_files import read_text
from gpuwhyd.model import BackendState, FieldSource, GpuIdentity, GpuReading, GpuState, Lack
from tests.backends.sysfs_watch import Refusals
from tests.samples import bind

FIRST, SECOND = "0000:03:00.0", "0000:43:00.0"


# -- attributes ---------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    return Attributes(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"41045000\n", 41.045),
        (b" 7 ", 0.000007),
        (b"-40000000", -40.0),
        (b"41045000\0\0\0\n", 41.045),
        (b"", None),
        (b"\n", None),
        (b"word", None),
        (b"1 2", None),
        (b"0x10", None),
        (b"1.5", None),
        (b"\xff\xfe", None),
        (b"\0\0\0", None),
        (b"9" * 4000, None),
        (b"101000000", None),
        (b"-41000000", None),
    ],
)
def test_a_number_is_scaled_and_what_is_none_or_out_of_bounds_is_none(tmp_path, files, content, value):
    (tmp_path / "power1_input").write_bytes(content)
    assert files.number("power1_input", -40.0, 100.0, scale=1e-6) == value
    assert files.lacks["power1_input"] is (None if value is not None else Lack.UNREADABLE)


@pytest.mark.parametrize(
    ("code", "lack"),
    [
        (errno.ENOENT, Lack.NO_SENSOR),
        (errno.ENODEV, Lack.NO_SENSOR),
        (errno.EOPNOTSUPP, Lack.NO_SENSOR),
        (errno.EACCES, Lack.NO_PERMISSION),
        (errno.EPERM, Lack.ASLEEP),
        (errno.EINVAL, Lack.UNREADABLE),
        (errno.EIO, Lack.UNREADABLE),
    ],
)
def test_how_a_read_failed_is_told(files, monkeypatch, code, lack):
    Refusals(monkeypatch).by_suffix["temp1_input"] = code
    assert files.number("temp1_input", 0, 1) is None
    assert files.text("temp1_input") is None
    assert files.lacks == {"temp1_input": lack}


def test_a_directory_is_no_attribute(tmp_path, files):
    (tmp_path / "hwmon").mkdir()
    assert files.text("hwmon") is None
    assert files.lacks["hwmon"] is Lack.UNREADABLE


def test_text_keeps_its_lines_and_loses_its_padding(tmp_path, files):
    (tmp_path / "levels").write_bytes(b"0: 500Mhz\n1: 700Mhz *\n\0\0\0\0")
    assert files.text("levels") == "0: 500Mhz\n1: 700Mhz *"
    assert files.raw("levels").endswith(b"\0")


def test_no_more_than_a_page_is_read(tmp_path, files):
    (tmp_path / "huge").write_bytes(b"x" * 100_000)
    assert len(files.raw("huge")) == 4096
    assert len(read_text(str(tmp_path / "huge"))) == 64
    assert read_text(str(tmp_path / "absent")) == ""


def test_the_revision_rises_only_when_a_lack_changes(tmp_path, files):
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("65535")
    for _ in range(3):
        files.number("a", 0, 10)
        files.number("b", 0, 10)
        files.raw("c")
    assert files.revision == 3
    (tmp_path / "b").write_text("7")
    files.number("b", 0, 10)
    assert files.revision == 4


def test_what_is_not_there_is_asked_again_only_when_told_to(tmp_path):
    files = Attributes(str(tmp_path), remembers_lacks=True)
    assert files.number("fan1_input", 0, 9000) is None
    (tmp_path / "fan1_input").write_text("1200")
    assert files.number("fan1_input", 0, 9000) is None
    files.ask_anew()
    assert files.number("fan1_input", 0, 9000) == 1200.0


@pytest.mark.parametrize("code", [errno.EPERM, errno.EINVAL])
def test_what_fails_for_now_is_asked_again_at_once(tmp_path, monkeypatch, code):
    refusals = Refusals(monkeypatch)
    files = Attributes(str(tmp_path), remembers_lacks=True)
    (tmp_path / "fan1_input").write_text("1200")
    refusals.by_suffix["fan1_input"] = code
    assert files.number("fan1_input", 0, 9000) is None
    refusals.by_suffix.clear()
    assert files.number("fan1_input", 0, 9000) == 1200.0


def test_attributes_forget_nothing_unless_asked_to(tmp_path, files):
    assert files.number("fan1_input", 0, 9000) is None
    (tmp_path / "fan1_input").write_text("1200")
    assert files.number("fan1_input", 0, 9000) == 1200.0


# -- the backend --------------------------------------------------------------------------------------------------


class FakeCard:
    """A card of no kind: it says what the test puts there."""

    def __init__(self, address):
        self.identity = GpuIdentity(id=f"pci_{address}", name=address, vendor="none", pci_address=address)
        self.error = None
        self.reads = 0
        self.idle = False
        self.stirring = False
        self.on_read = lambda: None
        self.told = (FieldSource(gpu_id=self.identity.id, backend="x", quantity="fan_rpm", source="f"),)

    def read(self, now):
        self.reads += 1
        self.on_read()
        if self.error:
            raise BackendError(self.error)
        return GpuReading(gpu=self.identity, backend="fake", temperature_celsius=now)

    def is_idle(self, reading):
        return self.idle

    def stirs(self):
        return self.stirring

    def sources(self):
        return self.told


class Bus:
    def __init__(self, sysfs):
        self.sysfs = sysfs
        self.cards = {}
        self.made = []
        self.now = 0.0
        self.backend = SysfsBackend("fake", sysfs=sysfs, make_card=self._make, monotonic=lambda: self.now)

    def _make(self, sysfs, address):
        assert sysfs == self.sysfs
        self.made.append(address)
        self.cards[address] = FakeCard(address)
        return self.cards[address]

    def plug(self, address, status="active", control="on"):
        power = self.sysfs / "bus/pci/devices" / address / "power"
        power.mkdir(parents=True, exist_ok=True)
        self.power(address, runtime_status=status, control=control, runtime_suspended_time="0")
        if not (power.parent / "driver").exists():
            bind(self.sysfs, address, "fake")
        else:
            (self.sysfs / "bus/pci/drivers/fake" / address).symlink_to(power.parent)

    def power(self, address, **files):
        for name, value in files.items():
            (self.sysfs / "bus/pci/devices" / address / "power" / name).write_text(value + "\n")

    def unplug(self, address):
        (self.sysfs / "bus/pci/drivers/fake" / address).unlink()

    def tick(self, seconds=2.0):
        self.now += seconds
        return self.backend.read()

    def states(self, seconds=2.0):
        return [reading.state for reading in self.tick(seconds).readings]


@pytest.fixture
def bus(tmp_path):
    return Bus(tmp_path / "sys")


def test_without_a_card_of_the_driver_it_may_come_later(bus):
    result = bus.backend.probe()
    assert (result.answer, "fake" in result.message) == (Probe.LATER, True)
    bus.plug(FIRST)
    assert bus.backend.probe().answer is Probe.READY
    assert bus.made == []  # a probe looks at no card


def test_a_sys_that_may_not_be_listed_is_told_and_probe_does_not_raise(bus, monkeypatch):
    def forbidden(path):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr("os.scandir", forbidden)
    result = bus.backend.probe()
    assert (result.answer, "Permission denied" in result.message) == (Probe.LATER, True)
    with pytest.raises(BackendError, match="Permission denied"):
        bus.tick()


def test_cards_come_and_go_and_those_that_stay_stay_the_same(bus):
    bus.plug(FIRST)
    assert bus.states() == [GpuState.AWAKE]
    bus.plug(SECOND)
    assert bus.states() == [GpuState.AWAKE, GpuState.AWAKE]
    assert len(bus.backend.sources()) == 2
    bus.unplug(FIRST)
    assert [reading.gpu.name for reading in bus.tick().readings] == [SECOND]
    assert len(bus.backend.sources()) == 1
    bus.plug(FIRST)
    bus.tick()
    assert bus.made == [FIRST, SECOND, FIRST]  # plugged in anew, it may be another one


def test_when_the_last_card_is_gone_the_read_fails(bus):
    bus.plug(FIRST)
    bus.tick()
    bus.unplug(FIRST)
    with pytest.raises(NoCardError, match="no card is left"):
        bus.tick()


def test_a_kernel_without_runtime_power_management_reads_its_cards(bus):
    bus.plug(FIRST)
    (bus.sysfs / "bus/pci/devices" / FIRST / "power/runtime_status").unlink()
    assert bus.states() == [GpuState.AWAKE]


def test_a_sleeping_card_is_not_read(bus):
    bus.plug(FIRST, status="suspended")
    assert bus.tick().state is BackendState.ASLEEP
    assert bus.cards[FIRST].reads == 0
    assert bus.backend.sources()[0].lack is Lack.ASLEEP


def test_a_card_that_fails_alone_is_a_failing_backend_and_logged_once(bus, caplog):
    bus.plug(FIRST)
    bus.tick()
    bus.cards[FIRST].error = "no answer"
    for _ in range(50):
        with pytest.raises(BackendError, match="no answer"):
            bus.tick()
    assert len(caplog.records) == 1
    bus.cards[FIRST].error = None
    assert bus.states() == [GpuState.AWAKE]


def test_a_card_that_fails_in_every_other_tick_fills_no_log(bus, caplog):
    bus.plug(FIRST)
    bus.plug(SECOND)
    bus.tick()
    for tick in range(200):
        bus.cards[FIRST].error = "no answer" if tick % 2 else None
        bus.tick()
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
    bus.cards[FIRST].error = "no answer"
    bus.tick(seconds=600)
    assert len(caplog.records) == 2


def test_one_of_two_that_fails_is_unknown_and_the_health_says_why(bus):
    bus.plug(FIRST)
    bus.plug(SECOND)
    bus.tick()
    bus.cards[SECOND].error = "no answer"
    answer = bus.tick()
    assert [reading.state for reading in answer.readings] == [GpuState.AWAKE, GpuState.UNKNOWN]
    assert (answer.state, answer.message) == (BackendState.READY, "no answer")
    assert answer.readings[1].temperature_celsius is None
    told = bus.backend.sources()[1]
    assert (told.lack, told.advice) == (Lack.UNREADABLE, "no answer")


def test_a_card_that_falls_asleep_while_it_is_read_is_asleep_and_no_failure(bus, caplog):
    bus.plug(FIRST)
    bus.tick()
    card = bus.cards[FIRST]
    card.error, card.on_read = "refused", lambda: bus.power(FIRST, runtime_status="suspended")
    answer = bus.tick()
    assert (answer.state, answer.readings[0].state) == (BackendState.ASLEEP, GpuState.ASLEEP)
    assert caplog.records == []


def test_a_failure_is_over_when_the_card_sleeps(bus):
    bus.plug(FIRST)
    bus.tick()
    bus.cards[FIRST].error = "no answer"
    with pytest.raises(BackendError):
        bus.tick()
    bus.power(FIRST, runtime_status="suspended")
    assert bus.tick().state is BackendState.ASLEEP


def test_what_is_learned_outlives_a_close(bus):
    bus.plug(FIRST)
    bus.tick()
    bus.backend.close()
    bus.backend.close()
    assert bus.states() == [GpuState.AWAKE]
    assert bus.made == [FIRST]


def test_an_idle_card_that_may_suspend_is_let_go_and_stirs_back(bus):
    bus.plug(FIRST, control="auto")
    bus.tick()
    card = bus.cards[FIRST]
    card.idle = True
    for _ in range(32):
        bus.tick()
    before = card.reads
    answer = bus.tick()
    assert (answer.state, answer.readings[0].state) == (BackendState.ASLEEP, GpuState.UNKNOWN)
    assert "let go" in answer.message
    assert bus.backend.sources()[0].lack is Lack.ASLEEP
    bus.tick()
    assert card.reads == before
    card.stirring = True
    assert bus.states() == [GpuState.AWAKE]
    assert bus.backend.sources()[0].lack is None


def test_a_card_with_a_display_of_its_own_is_not_let_go(bus):
    bus.plug(FIRST, control="auto")
    connector = bus.sysfs / "bus/pci/devices" / FIRST / "drm/card0/card0-DP-1"
    connector.mkdir(parents=True)
    (connector / "enabled").write_text("enabled\n")
    bus.tick()
    bus.cards[FIRST].idle = True
    for _ in range(100):
        assert bus.states() == [GpuState.AWAKE]
    assert bus.tick().readings[0].can_suspend is False


def test_whether_a_card_may_suspend_is_looked_at_every_half_minute(bus):
    bus.plug(FIRST)
    assert bus.tick().readings[0].can_suspend is False
    bus.power(FIRST, control="auto")
    assert bus.tick(seconds=20).readings[0].can_suspend is False
    assert bus.tick(seconds=11).readings[0].can_suspend is True
