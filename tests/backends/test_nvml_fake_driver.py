"""The fake driver is as the real one: its ABI, its two-call protocols, and its state that other processes change."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pynvml
import pytest

from tests.backends.nvml_rig import ADDRESS, NvmlRig, run_python
from tests.fake_nvml import control
from tests.fake_nvml.control import FakeDriver, FakeProcess, FakeSample


@pytest.fixture
def rig(tmp_path):
    with NvmlRig(tmp_path) as rig:
        yield rig


@pytest.fixture
def handle(rig):
    rig.add_card()
    pynvml.nvmlInit()
    yield pynvml.nvmlDeviceGetHandleByIndex(0)
    pynvml.nvmlShutdown()


def test_every_structure_of_nvidia_ml_py_has_the_size_that_nvml_h_has():
    # The C side of the same numbers is asserted when the fake is compiled against nvml.h.
    sizes = {
        "nvmlPciInfo_t": 68,
        "c_nvmlMemory_t": 24,
        "c_nvmlMemory_v2_t": 40,
        "c_nvmlUtilization_t": 8,
        "c_nvmlProcessInfo_v2_t": 24,
        "c_nvmlProcessInfo_v3_t": 24,
        "c_nvmlProcessUtilizationSample_t": 32,
        "c_nvmlProcessesUtilizationInfo_v1_t": 24,
        "c_nvmlFieldValue_t": 40,
        "c_nvmlSample_t": 16,
        "c_nvmlEventData_t": 32,
        "c_nvmlFanSpeedInfo_t": 12,
        "c_nvmlTemperature_v1_t": 12,
        "c_nvmlMarginTemperature_v1_t": 8,
        "c_nvmlAccountingStats_t": 56,
        "c_nvmlGpuThermalSettings_t": 64,
    }
    assert {name: ctypes.sizeof(getattr(pynvml, name)) for name in sizes} == sizes
    assert (pynvml.nvmlFanSpeedInfo_v1, pynvml.nvmlMemory_v2, pynvml.nvmlMarginTemperature_v1) == (
        0x100000C,
        0x2000028,
        0x1000008,
    )


def test_a_layout_that_c_does_not_share_is_not_compiled(tmp_path, monkeypatch):
    wrong = control.layout_header().replace("uint32_t process_count;", "uint64_t process_count;")
    monkeypatch.setattr(control, "layout_header", lambda: wrong)
    with pytest.raises(subprocess.CalledProcessError):
        FakeDriver.build(tmp_path)


def test_the_genuine_binding_reads_every_kind_of_value(rig, handle):
    rig.driver.cards[0].set_processes(FakeProcess(pid=42, sm=95, memory_bytes=None))
    assert pynvml.nvmlDeviceGetName(handle) == "NVIDIA GeForce RTX 3070"
    assert pynvml.nvmlDeviceGetPciInfo(handle).busId == "00000000:01:00.0"
    assert pynvml.nvmlDeviceGetFanSpeedRPM(handle) == 1000
    assert pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2).reserved == 256 << 20
    power, unknown = pynvml.nvmlDeviceGetFieldValues(handle, [pynvml.NVML_FI_DEV_POWER_INSTANT, 999])
    assert (power.nvmlReturn, power.value.uiVal, unknown.nvmlReturn) == (0, 21_500, 3)
    (process,) = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    assert (process.pid, process.usedGpuMemory) == (42, None)


def test_process_samples_are_asked_for_twice_and_not_found_when_nobody_works(rig, handle):
    with pytest.raises(pynvml.NVMLError_NotFound):
        pynvml.nvmlDeviceGetProcessUtilization(handle, 0)
    assert rig.driver.calls("nvmlDeviceGetProcessUtilization") == 2
    rig.driver.cards[0].set_samples(FakeSample(pid=7, time_stamp=rig.wall_us, sm=50))
    (sample,) = pynvml.nvmlDeviceGetProcessUtilization(handle, 0)
    assert (sample.pid, sample.smUtil) == (7, 50)
    rig.driver.cards[0].set_sizing(succeeds=True)
    with pytest.raises(pynvml.NVMLError) as raised:
        pynvml.nvmlDeviceGetProcessUtilization(handle, 0)
    assert raised.value.value == 0


def test_an_absent_function_looks_like_an_old_driver(tmp_path):
    FakeDriver(FakeDriver.build(tmp_path, without=("nvmlDeviceGetComputeRunningProcesses_v3",))).add_card(
        ADDRESS
    )
    said = run_python(
        "import pynvml; pynvml.nvmlInit(); handle = pynvml.nvmlDeviceGetHandleByIndex(0)\n"
        "try: pynvml.nvmlDeviceGetComputeRunningProcesses(handle)\n"
        "except pynvml.NVMLLibraryMismatchError: print('mismatch')\n"
        "print(pynvml.nvmlDeviceGetComputeRunningProcesses_v2(handle))",
        library_folder=tmp_path,
    )
    assert said.split() == ["mismatch", "[]"]


def test_another_process_changes_the_cards_with_nothing_but_the_control_file(rig, handle, tmp_path):
    alone = tmp_path / "control.py"
    alone.write_text(Path(control.__file__).read_text())
    code = (
        "from control import FakeDriver, FakeProcess, Fault\n"
        f"with FakeDriver({str(rig.driver.path)!r}) as driver:\n"
        "    driver.cards[0].set(temperature=77, power_usage_mw=Fault(999))\n"
        "    driver.cards[0].set_processes(FakeProcess(pid=1234))\n"
        "    driver.fail('nvmlDeviceGetFanSpeed_v2', 13)\n"
    )
    subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, check=True)
    assert pynvml.nvmlDeviceGetTemperature(handle, 0) == 77
    assert [process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)] == [1234]
    with pytest.raises(pynvml.NVMLError_Unknown):
        pynvml.nvmlDeviceGetPowerUsage(handle)
    with pytest.raises(pynvml.NVMLError_FunctionNotFound):
        pynvml.nvmlDeviceGetFanSpeed_v2(handle, 0)


def test_a_state_file_that_is_replaced_is_read_anew(rig, handle, tmp_path):
    with FakeDriver(tmp_path / "other.state") as other:
        other.add_card(ADDRESS, temperature=11)
        (tmp_path / "other.state").rename(rig.driver.path)
    assert pynvml.nvmlDeviceGetTemperature(handle, 0) == 11


def test_attaching_is_counted_as_a_real_card_would_be_woken(rig):
    card = rig.add_card()
    pynvml.nvmlInitWithFlags(2)
    assert (card.attached, card.attach_count) == (0, 0)
    pynvml.nvmlDeviceGetHandleByPciBusId(ADDRESS)
    assert (card.attached, card.attach_count) == (1, 1)
    pynvml.nvmlShutdown()
    assert card.attached == 0
    pynvml.nvmlInit()
    assert card.attach_count == 2
    pynvml.nvmlShutdown()
