"""What a card is called, from the lists that other packages keep on the machine, and without any of them."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.backends.pci_names import device_name, pci_id
from tests.fuzz.mutation import HOSTILE_TEXTS, damaged_text, examples

PCI_IDS = """\
# comment
1001  Kolter Electronic
\t73ff  Not this one
1002  Advanced Micro Devices, Inc. [AMD/ATI]
\t731f  Navi 10 [Radeon RX 5600 OEM/5600 XT / 5700/5700 XT]
\t73ff  Navi 23 [Radeon RX 6600/6600 XT/6600M]
\t\t73ff 1002  Not this one either
10de  NVIDIA Corporation
\t2484  GA104 [GeForce RTX 3070]
8086  Intel Corporation
\t56a5  DG2 [Arc A380]
\t9b41  CometLake-U GT2 [UHD Graphics]
\t0042  Core Processor Integrated Graphics Controller
C 03  Display controller
\t00  VGA compatible controller
"""
AMDGPU_IDS = """\
# List of AMDGPU IDs
1.0.0
73FF,\tC1,\tAMD Radeon RX 6600 XT
73FF,\tC7,\tAMD Radeon RX 6600
"""


class Machine:
    def __init__(self, folder: Path) -> None:
        self.run, self.share = folder / "run", folder / "share"
        self.device = folder / "sys/bus/pci/devices/0000:03:00.0"

    def card(self, vendor: str = "0x1002", product: str = "0x73ff", revision: str = "0xc7") -> "Machine":
        self._write(self.device / "vendor", vendor + "\n")
        self._write(self.device / "device", product + "\n")
        self._write(self.device / "revision", revision + "\n")
        return self

    def libdrm(self, text: str = AMDGPU_IDS) -> "Machine":
        return self._write(self.share / "libdrm/amdgpu.ids", text)

    def udev(self, text: str) -> "Machine":
        return self._write(self.run / "udev/data/+pci:0000:03:00.0", text)

    def pci_ids(self, text: str = PCI_IDS, place: str = "misc") -> "Machine":
        return self._write(self.share / place / "pci.ids", text)

    @property
    def name(self) -> str:
        return device_name(str(self.device), run=self.run, share=self.share)

    def _write(self, path: Path, text: str) -> "Machine":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode(errors="surrogatepass"))
        return self


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_libdrm_knows_the_product_by_its_revision(machine: Machine) -> None:
    machine.libdrm().pci_ids().udev("E:ID_MODEL_FROM_DATABASE=Navi 23 [Radeon RX 6600/6600 XT/6600M]\n")
    assert machine.card(revision="0xc7").name == "AMD Radeon RX 6600"
    assert machine.card(revision="0xC1").name == "AMD Radeon RX 6600 XT"


def test_a_revision_that_libdrm_does_not_know_has_udevs_name(machine: Machine) -> None:
    machine.libdrm().udev("I:1\nE:ID_MODEL_FROM_DATABASE=Navi 23 [Radeon RX 6600/6600 XT/6600M]\nE:X=1\n")
    assert machine.card(revision="0xff").name == "AMD Radeon RX 6600/6600 XT/6600M"


@pytest.mark.parametrize("place", ["misc", "hwdata"])
@pytest.mark.parametrize(
    ("vendor", "product", "name"),
    [
        ("0x1002", "0x73ff", "AMD Radeon RX 6600/6600 XT/6600M"),
        ("0x10de", "0x2484", "NVIDIA GeForce RTX 3070"),
        ("0x8086", "0x56A5", "Intel Arc A380"),
        ("0x8086", "0x0042", "Intel Core Processor Integrated Graphics Controller"),
        ("0x8086", "0x2484", "Intel GPU 8086:2484"),
        ("0x8086", "0x0000", "Intel GPU 8086:0000"),
        ("0x1a03", "0x2000", "GPU 1a03:2000"),
    ],
)
def test_pci_ids_knows_devices_of_their_vendor_only(
    machine: Machine, place: str, vendor: str, product: str, name: str
) -> None:
    assert machine.pci_ids(place=place).card(vendor, product).name == name


def test_the_next_list_is_asked_when_the_first_one_does_not_know(machine: Machine) -> None:
    machine.pci_ids("8086  Intel Corporation\n").pci_ids(place="hwdata")
    assert machine.card("0x8086", "0x56a5").name == "Intel Arc A380"


def test_without_any_list_a_card_is_called_by_its_numbers(machine: Machine) -> None:
    assert machine.card("0x8086", "0x56a5").name == "Intel GPU 8086:56a5"


def test_a_card_without_numbers_is_a_gpu(machine: Machine) -> None:
    """samples of sysfs, and cards that go away while they are looked at"""
    machine.pci_ids().libdrm()
    assert machine.name == "GPU"
    assert pci_id(str(machine.device)) is None


def test_a_maker_is_not_named_twice(machine: Machine) -> None:
    machine.udev("E:ID_MODEL_FROM_DATABASE=Intel Iris Xe\n")
    assert machine.card("0x8086", "0x9a49").name == "Intel Iris Xe"


@pytest.mark.parametrize("garbage", ["", "0x", "0x1", "0x12345", "8086", "0xzzzz", "0x8086\n0x8086", "\0\0"])
def test_garbage_is_no_number(machine: Machine, garbage: str) -> None:
    machine.pci_ids()
    assert pci_id(str(machine.card(vendor=garbage).device)) is None
    assert pci_id(str(machine.card(product=garbage).device)) is None
    assert machine.name == "AMD GPU"


@pytest.mark.parametrize(
    "text",
    [
        "E:ID_MODEL_FROM_DATABASE=\n",
        "E:ID_MODEL_FROM_DATABASE=  \n",
        "E:ID_MODEL_FROM_DATABASE=Chip [\x1b[2J]\n",
        "E:ID_MODEL_FROM_DATABASE=" + "x" * 5000 + "\n",
        "ID_MODEL_FROM_DATABASE=No property\n",
        "\0" * 100,
    ],
)
def test_a_name_that_is_none_gives_way_to_the_next_list(machine: Machine, text: str) -> None:
    assert machine.udev(text).pci_ids().card().name == "AMD Radeon RX 6600/6600 XT/6600M"


def test_directories_in_place_of_lists_are_no_lists(machine: Machine) -> None:
    (machine.share / "libdrm/amdgpu.ids").mkdir(parents=True)
    (machine.share / "misc/pci.ids").mkdir(parents=True)
    assert machine.card().name == "AMD GPU 1002:73ff"


@examples(150)
@given(
    damaged_text([AMDGPU_IDS, PCI_IDS], pieces=["73ff", "73FF,C7,", "\t73ff  ", "1002  ", "[", "]"]),
    damaged_text([PCI_IDS, AMDGPU_IDS], pieces=["\t73ff  ", "1002  ", "[", "]"]),
    damaged_text(["E:ID_MODEL_FROM_DATABASE=Navi [RX]\n"], pieces=["[", "]"]),
    st.sampled_from(["0x73ff", *HOSTILE_TEXTS]),
)
def test_whatever_the_files_hold_a_name_is_one_printable_line(
    libdrm: str, pci_ids: str, udev: str, product: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder)).libdrm(libdrm).pci_ids(pci_ids).udev(udev).card(product=product)
        assert machine.name.isprintable()
        assert 0 < len(machine.name) <= 170
        assert machine.name.startswith("AMD")
