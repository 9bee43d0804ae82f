"""The whole daemon on a laptop: the fan of the board is the GPU's, or one of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.chassis_rig import ChassisRig
from tests.daemon.running import CONFIG, PCI, Machine, command, machine, until
from tests.fake_nvml.control import FakeDriver


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FakeDriver.build(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def here(tmp_path: Path, library: Path) -> Iterator[Machine]:
    with machine(tmp_path, library) as built:
        yield built


def gpus(here: Machine) -> dict[str, dict]:
    return {gpu["gpu"].rpartition("/")[2]: gpu for gpu in here.ask("status").get("gpus", ())}


def test_a_laptops_gpu_has_the_fan_that_the_board_labels_for_it(here: Machine) -> None:
    laptop = ChassisRig(here.folder / "sys")
    asus = laptop.chip("asus", fan1_input=2400, fan1_label="gpu_fan", pwm1_enable=2)
    here.add_card(number_of_fans=0, temperature=50)
    here.start()
    until(lambda: gpus(here).get("pci_0000_01_00_0", {}).get("fan_rpm") == 2400, "the fan is there")
    status = here.ask("status")
    ready = {name for name, state in status["backends"].items() if state == "ready"}
    assert ready == {"nvml", "chassis"}
    (gpu,) = status["gpus"]
    assert (gpu["state"], gpu["fan_mode"], gpu["temperature_celsius"]) == ("awake", "auto", 50)
    laptop.write(asus, fan1_input=4000)
    until(lambda: gpus(here)["pci_0000_01_00_0"]["fan_rpm"] == 4000, "the fan is followed")
    assert here.end() == 0
    assert "Traceback" not in here.log


def test_a_thinkpads_fan_is_there_without_any_card(here: Machine) -> None:
    laptop = ChassisRig(here.folder / "sys")
    laptop.dmi(product_name="20QNS00X00", product_version="ThinkPad P53", vendor="LENOVO")
    laptop.chip("thinkpad", fan1_input=2400, pwm1_enable=2)
    laptop.chip("coretemp", temp1_label="Package id 0", temp1_input=61000)
    here.start()
    until(lambda: gpus(here).get("chassis_thinkpad", {}).get("fan_rpm") == 2400, "the fan is there")
    gpu = gpus(here)["chassis_thinkpad"]
    assert (gpu["name"], gpu["temperature_celsius"], gpu["fan_mode"]) == ("ThinkPad P53 fan", 61, "auto")
    assert here.end() == 0
    assert "Traceback" not in here.log


def test_a_fan_that_the_configuration_gives_away_is_taken_at_the_next_start(here: Machine) -> None:
    desktop = ChassisRig(here.folder / "sys")
    desktop.dmi(chassis_type="3")
    desktop.chip("nct6798", fan2_input=1100)
    here.add_card(number_of_fans=0)
    here.start()
    until(lambda: "pci_0000_01_00_0" in gpus(here), "the card is there")
    assert "fan_rpm" not in {
        key for key, value in gpus(here)["pci_0000_01_00_0"].items() if value is not None
    }
    here.config.write_text(f'{CONFIG}\n[[fan]]\nchip = "nct6798"\nfan = 2\ngpu = "{PCI}"\n')
    assert command("gpuwhyd", "--bus", here.address, "reload").returncode == 0
    until(lambda: "[[fan]] takes effect at the next start" in here.log, "it says so")
    assert here.end() == 0
    here.start()
    until(lambda: gpus(here).get("pci_0000_01_00_0", {}).get("fan_rpm") == 1100, "the fan is there")
    assert here.end() == 0
