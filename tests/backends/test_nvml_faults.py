"""Drivers that are absent, too old, unloaded, replaced, hung, or lose a card: states, not ends."""

import threading

import pytest

from gpuwhyd.backends import nvml_library
from gpuwhyd.backends.base import Probe
from gpuwhyd.errors import BackendError, NoCardError
from gpuwhyd.model import BackendState, GpuState
from tests.backends.fake_programs import until
from tests.backends.nvml_rig import ADDRESS, SECOND, NvmlRig, run_python
from tests.fake_nvml.control import (
    DRIVER_NOT_LOADED,
    GPU_IS_LOST,
    NO_PERMISSION,
    NOT_FOUND,
    UNKNOWN,
    VERSION_MISMATCH,
    FakeDriver,
)
from tests.fake_nvml.sysfs import FakeSysfs


@pytest.fixture
def rig(tmp_path):
    with NvmlRig(tmp_path) as rig:
        yield rig


def states(read):
    return [reading.state for reading in read.readings]


def test_no_card_on_the_bus_may_change(rig):
    found = rig.backend.probe()
    assert (found.answer, found.message) == (Probe.LATER, "no NVIDIA card on the PCI bus")
    rig.add_card()
    assert rig.backend.probe().answer is Probe.READY


def test_without_the_python_package_it_will_never_work(rig, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    found = rig.backend.probe()
    assert found.answer is Probe.NEVER
    assert "pip install nvidia-ml-py" in found.message


def test_the_driver_library_may_appear_later(tmp_path):
    sysfs = FakeSysfs(tmp_path / "sys")
    sysfs.add(ADDRESS)
    folder = tmp_path / "lib"
    folder.mkdir()
    said = run_python(
        "from pathlib import Path\n"
        "from gpuwhyd.backends.nvml import NvmlBackend\n"
        "from tests.fake_nvml.control import FakeDriver\n"
        f"backend = NvmlBackend(sysfs=Path({str(sysfs.root)!r}), own_pid=1)\n"
        "found = backend.probe(); print(found.answer, found.message)\n"
        f"FakeDriver(FakeDriver.build(Path({str(folder)!r}))).add_card({ADDRESS!r})\n"
        "print(backend.probe().answer, backend.read().readings[0].state)",
        library_folder=folder,
    )
    absent, present = said.splitlines()
    assert absent.startswith("later ")
    assert "libnvidia-ml.so.1" in absent
    assert present == "ready awake"


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (DRIVER_NOT_LOADED, "modprobe nvidia"),
        (NO_PERMISSION, "/dev/nvidiactl"),
        (UNKNOWN, "Unknown Error"),
    ],
)
def test_a_driver_that_cannot_be_initialised_is_waited_for(rig, code, advice):
    rig.add_card()
    rig.driver.fail("nvmlInitWithFlags", code)
    found = rig.backend.probe()
    assert found.answer is Probe.LATER
    assert advice in found.message
    rig.driver.fail("nvmlInitWithFlags", 0)
    assert rig.backend.probe().answer is Probe.READY


@pytest.mark.parametrize(
    ("loaded", "advice"),
    [
        (False, "the NVIDIA kernel module is not loaded: modprobe nvidia"),
        (True, "no kernel driver has the NVIDIA card"),
    ],
)
def test_a_driver_that_does_not_have_the_card_is_waited_for_without_nvml(rig, loaded, advice):
    """NVML, called as root, would load a driver that was left out on purpose."""
    rig.add_card()
    rig.sysfs.unbind(ADDRESS)
    if loaded:
        rig.sysfs.set_module_version("550.54.14")
    found = rig.backend.probe()
    assert (found.answer, found.no_card) == (Probe.LATER, False)
    assert advice in found.message
    assert rig.driver.calls() == 0


def test_an_unloaded_driver_fails_the_read_and_a_loaded_one_is_taken_up(rig):
    rig.add_card()
    assert states(rig.read()) == [GpuState.AWAKE]
    rig.driver.unload()
    with pytest.raises(BackendError, match="Driver Not Loaded"):
        rig.read()
    rig.backend.close()
    assert rig.backend.probe().answer is Probe.LATER
    rig.driver.load()
    assert rig.backend.probe().answer is Probe.READY
    assert states(rig.read()) == [GpuState.AWAKE]


def test_a_session_that_someone_else_ended_is_an_error_and_begins_anew(rig):
    rig.add_card()
    rig.read()
    rig.backend._library.nvml.nvmlShutdown()
    with pytest.raises(BackendError, match="Uninitialized"):
        rig.read()
    rig.backend.close()
    assert rig.backend.probe().answer is Probe.READY
    assert states(rig.read()) == [GpuState.AWAKE]


RELOAD = """
from pathlib import Path
from gpuwhyd.backends.nvml import NvmlBackend
from gpuwhyd.errors import BackendError
from tests.fake_nvml.control import FakeDriver
folder = Path({folder!r})
driver = FakeDriver(folder)
backend = NvmlBackend(sysfs=Path({sysfs!r}), own_pid=1)
assert backend.probe().answer == "ready"
print(backend.read().readings[0].gpu.driver)
{before}
FakeDriver.build(folder, version="560.35.03")
driver.load("560.35.03", checks_version=True)
driver.fail_all(18)
try: backend.read()
except BackendError as error: print(error)
driver.fail_all(0)
backend.close()
found = backend.probe(); print(found.answer, found.message)
if found.answer == "ready": print(backend.read().readings[0].gpu.driver)
"""


def replaced_driver(tmp_path, before=""):
    FakeDriver(FakeDriver.build(tmp_path / "lib")).add_card(ADDRESS)
    sysfs = FakeSysfs(tmp_path / "sys")
    sysfs.add(ADDRESS)
    sysfs.set_module_version("560.35.03")
    code = RELOAD.format(folder=str(tmp_path / "lib"), sysfs=str(sysfs.root), before=before)
    return run_python(code, library_folder=tmp_path / "lib").splitlines()


def test_a_replaced_driver_is_taken_up_with_its_new_library(tmp_path):
    old, error, found, new = replaced_driver(tmp_path)
    assert (old, new) == ("nvidia 550.54.14", "nvidia 560.35.03")
    assert "version mismatch" in error
    assert found.strip() == "ready"


def test_where_the_old_library_cannot_be_dropped_a_restart_is_asked_for(tmp_path):
    held = "import ctypes; ctypes.CDLL('libnvidia-ml.so.1')"
    _, _, found = replaced_driver(tmp_path, before=held)
    assert found.startswith("later ")
    assert "systemctl restart gpuwhyd" in found
    assert "560.35.03" in found


def test_a_library_that_does_not_fit_the_loaded_module_is_told_as_that(rig, monkeypatch):
    rig.add_card()
    rig.sysfs.set_module_version("560.35.03")
    rig.driver.fail("nvmlInitWithFlags", VERSION_MISMATCH)
    monkeypatch.setattr(nvml_library, "_dlclose", lambda _handle: None)  # this process needs it loaded
    found = rig.backend.probe()
    assert found.answer is Probe.LATER
    assert "560.35.03" in found.message
    assert "reboot" in found.message


def test_a_lost_card_is_lost_and_the_other_goes_on(rig):
    first = rig.add_card()
    rig.add_card(SECOND, temperature=50)
    rig.read()
    first.lose()
    for _ in range(3):
        read = rig.read()
        assert states(read) == [GpuState.LOST, GpuState.AWAKE]
        assert read.readings[0].gpu.name == "NVIDIA GeForce RTX 3070"
        assert read.readings[1].temperature_celsius == 50.0
    assert read.state is BackendState.READY
    first.lose(lost=False)
    rig.later(60)
    assert states(rig.read()) == [GpuState.AWAKE, GpuState.AWAKE]


def test_a_lost_card_is_asked_again_only_once_a_minute(rig):
    card = rig.add_card()
    rig.read()
    card.lose()
    rig.read()
    calls, attached = rig.driver.calls(), card.attach_count
    for _ in range(20):
        assert states(rig.read()) == [GpuState.LOST]
    assert (rig.driver.calls(), card.attach_count) == (calls, attached)
    rig.later(60)
    assert states(rig.read()) == [GpuState.LOST]
    assert card.attach_count == attached + 1


def test_a_card_lost_by_one_answer_is_lost(rig):
    rig.add_card().fail("nvmlDeviceGetUtilizationRates", GPU_IS_LOST)
    assert states(rig.read()) == [GpuState.LOST]


def test_a_card_that_was_pulled_out_is_gone_and_one_plugged_in_is_there(rig):
    rig.add_card()
    rig.add_card(SECOND)
    assert len(rig.read().readings) == 2
    rig.sysfs.remove(SECOND)
    assert [reading.gpu.pci_address for reading in rig.read().readings] == [ADDRESS]
    rig.sysfs.add(SECOND)
    assert states(rig.read()) == [GpuState.AWAKE, GpuState.AWAKE]
    rig.sysfs.remove(ADDRESS)
    rig.sysfs.remove(SECOND)
    with pytest.raises(NoCardError, match="no NVIDIA card is left"):
        rig.read()


def test_one_failing_sensor_is_left_out_and_told_once(rig, caplog):
    caplog.set_level("INFO")
    rig.add_card().fail("nvmlDeviceGetTemperature", UNKNOWN)
    rig.driver.fail("nvmlDeviceGetTemperatureV", UNKNOWN)
    for _ in range(4):
        reading = rig.reading()
        assert (reading.state, reading.temperature_celsius, reading.power_watts) == (
            GpuState.AWAKE,
            None,
            21.5,
        )
    told = [
        record.getMessage() for record in caplog.records if "nvmlDeviceGetTemperature " in record.getMessage()
    ]
    assert told == ["GPU 0000:01:00.0: nvmlDeviceGetTemperature gives 'Unknown Error'; it is left out"]


def test_a_driver_that_answers_every_question_with_an_error_fails_the_read(rig):
    rig.add_card()
    rig.add_card(SECOND)
    rig.read()
    rig.driver.fail_all(UNKNOWN)
    with pytest.raises(BackendError, match="nothing but errors"):
        rig.read()
    rig.driver.fail_all(0)
    assert states(rig.read()) == [GpuState.AWAKE, GpuState.AWAKE]


def test_one_card_that_answers_nothing_but_errors_is_unknown(rig):
    broken = rig.add_card()
    rig.add_card(SECOND)
    rig.read()
    for function in rig.driver.functions:
        broken.fail(function, UNKNOWN)
    read = rig.read()
    assert states(read) == [GpuState.UNKNOWN, GpuState.AWAKE]
    assert read.readings[0].power_watts is None


@pytest.mark.parametrize("code", [NOT_FOUND, NO_PERMISSION, UNKNOWN])
def test_a_card_that_cannot_be_opened_is_unknown_beside_one_that_can(rig, code):
    rig.add_card().fail("nvmlDeviceGetHandleByPciBusId_v2", code)
    rig.add_card(SECOND)
    assert states(rig.read()) == [GpuState.UNKNOWN, GpuState.AWAKE]
    rig.driver.cards[0].fail("nvmlDeviceGetHandleByPciBusId_v2", 0)
    rig.later(60)
    assert states(rig.read()) == [GpuState.AWAKE, GpuState.AWAKE]


def test_a_name_that_is_no_text_does_not_cost_the_card(rig):
    rig.add_card()
    rig.driver._state.cards[0].name = b"\xff\xfe card"
    reading = rig.reading()
    assert (reading.gpu.name, reading.temperature_celsius) == ("NVIDIA GPU", 35.0)


def test_names_that_cannot_be_shown_are_none(rig):
    card = rig.add_card()
    card.rename(name="a\nb\x1b[2J", uuid="GPU-\x07", vbios=" ")
    rig.driver.load("550\x1b[2J")
    gpu = rig.reading().gpu
    assert (gpu.name, gpu.uuid, gpu.vbios_version, gpu.driver) == ("NVIDIA GPU", None, None, None)


def test_a_call_that_hangs_holds_only_its_caller_and_ends_when_the_driver_answers(rig):
    rig.add_card(temperature=44)
    rig.read()
    rig.driver.hang("nvmlDeviceGetTemperature")
    results = []
    worker = threading.Thread(target=lambda: results.append(rig.backend.read()))
    worker.start()
    until(lambda: rig.driver.hanging == 1)
    assert not results  # and this thread runs: the call does not hold the interpreter
    rig.driver.release()
    worker.join(timeout=5)
    assert results[0].readings[0].temperature_celsius == 44.0


def test_a_driver_that_is_slow_every_time_answers_every_time(rig):
    rig.add_card(temperature=44)
    rig.driver.hang("nvmlDeviceGetTemperature", seconds=0.004)
    assert rig.reading().temperature_celsius == 44.0
    assert rig.reading().temperature_celsius == 44.0
    assert rig.driver.hanging == 0


def test_closing_twice_or_before_anything_is_harmless(rig):
    rig.backend.close()
    rig.add_card()
    rig.read()
    rig.backend.close()
    rig.backend.close()
    assert rig.driver.cards[0].attached == 0


def test_a_shutdown_that_fails_is_told_and_not_raised(rig, caplog):
    caplog.set_level("INFO")
    rig.add_card()
    rig.read()
    rig.driver.fail("nvmlShutdown", UNKNOWN)
    rig.backend.close()
    assert "did not shut down cleanly" in caplog.text
    rig.driver.fail("nvmlShutdown", 0)
    rig.read()
    rig.backend.close()
    assert rig.driver.cards[0].attached == 0, "the session that could not be given back keeps the card open"
