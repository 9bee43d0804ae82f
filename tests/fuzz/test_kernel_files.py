"""Small files of the kernel with anything in them, or missing, or directories: finite figures, or nothing known."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

import psutil
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpuwhyd.backends.battery import is_on_battery
from gpuwhyd.backends.cpu_temperature import CELSIUS, SEARCH_SECONDS, CpuTemperature
from gpuwhyd.backends.nvml_pci import can_suspend, module_version, nvidia_addresses
from gpuwhyd.backends.pci import PowerPaths
from gpuwhyd.daemon import _resident_bytes
from gpuwhyd.install.machine import command, unit_properties
from gpuwhyd.kernel_files import read_text, read_whole_number
from gpuwhyd.model import FanReading, GpuIdentity, GpuReading
from gpuwhyd.processes.gpu_index import may_look_into_all
from gpuwhyd.processes.gpu_nodes import GpuNodes
from gpuwhyd.processes.host import HostWatch
from gpuwhyd.processes.rapl import CpuPower
from tests.fuzz.mutation import HOSTILE_TEXTS, damaged_bytes, examples

Content = bytes | str | None
"""Of a file; a text: a directory of that name is there instead; None: nothing is."""

NOTHING: st.SearchStrategy[Content] = st.sampled_from([None, "directory"])
NOISE = st.one_of(
    st.binary(max_size=80),
    st.sampled_from([text.encode(errors="surrogatepass") for text in HOSTILE_TEXTS]),
    st.sampled_from([b"\0" * 70, b"9" * 5000, b"\xd9\xa3", b"+1", b"1_000", b"0x41", b"inf", b"1e9", b"\xff" * 64]),
    st.integers(-(2**65), 2**65).map(lambda number: b"%d\n" % number),
)  # fmt: skip


def contents(*whole: bytes) -> st.SearchStrategy[Content]:
    """Mostly these, so that several files are good at a time; or damaged, or not like them at all."""
    good = st.sampled_from(list(whole))
    return st.one_of(good, good, good, damaged_bytes(whole, most=2), NOISE, NOTHING)


def put(path: Path, content: Content) -> None:
    """In place of what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.mkdir()


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """In which no descriptor is left open."""
    before = len(os.listdir("/proc/self/fd"))
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
    assert len(os.listdir("/proc/self/fd")) == before


@examples(80)
@given(contents(b"active\n", b"18446744073709551615\n"))
def test_any_file_is_a_short_text_and_a_number_of_64_bits_or_none(content: Content) -> None:
    with folder() as root:
        put(root / "value", content)
        path = str(root / "value")
        text, number = read_text(path), read_whole_number(path)
    assert len(text) <= 64
    assert text == text.strip()
    assert number is None or 0 <= number < 10**20
    assert number is None or str(number) == (text.lstrip("0") or "0")


ZONES = st.fixed_dictionaries(
    {
        "name": contents(b"package-0\n", b"package-0\n", b"psys\n", b"package-1-die-1\n"),
        "max_energy_range_uj": contents(b"262143328850\n", b"65532610987\n"),
    }
)
COUNTERS = contents(b"1000000\n", b"31000000\n", b"262143328849\n")


@examples(50)
@given(
    st.lists(ZONES, min_size=1, max_size=3),
    st.lists(
        st.tuples(st.sampled_from([-5.0, 0.0, 0.05, 2.0, 61.0]), st.lists(COUNTERS, min_size=3, max_size=3)),
        min_size=2,
        max_size=5,
    ),
)
def test_any_energy_counters_give_power_that_cpus_can_draw_or_none(
    zones: list[dict[str, Content]], ticks: list[tuple[float, list[Content]]]
) -> None:
    with folder() as root:
        for number, zone in enumerate(zones):
            for name, content in zone.items():
                put(root / f"intel-rapl:{number}" / name, content)
        power, now = CpuPower(str(root)), 1000.0
        assert power.read(now) is None
        for seconds, counters in ticks:
            now += seconds
            for number, counter in zip(range(len(zones)), counters, strict=False):
                put(root / f"intel-rapl:{number}/energy_uj", counter)
            watts = power.read(now)
            assert watts is None or 0 <= watts <= 2000.0 * len(zones)

        put(root / "intel-rapl:0/name", b"package-0")
        for seconds, microjoules in ((100, b"1000000"), (1, b"31000000")):
            now += seconds
            for number in range(len(zones)):
                put(root / f"intel-rapl:{number}/energy_uj", b"5" if number else microjoules)
            watts = power.read(now)
        put(root / "intel-rapl:0/energy_uj", b"65532610987")
        if zones[0]["name"] == b"package-0\n":
            assert watts == 30.0
            assert power.read(now + 1) is None, "no package draws 65 kW"


CHIPS = st.fixed_dictionaries(
    {
        "name": contents(b"coretemp\n", b"k10temp\n", b"acpitz\n", b"cpu_thermal\n", b"nvme\n"),
        "temp1_label": contents(b"Package id 0\n", b"Tctl\n", b"Core 0\n"),
        "temp1_input": contents(b"47000\n", b"0\n", b"255000\n"),
        "temp2_input": contents(b"91000\n"),
    }
)


@examples(50)
@given(st.lists(CHIPS, max_size=3), st.lists(CHIPS, min_size=3, max_size=3))
def test_any_sensors_give_a_temperature_that_a_cpu_can_have_or_none(
    chips: list[dict[str, Content]], later: list[dict[str, Content]]
) -> None:
    with folder() as root:
        temperature = CpuTemperature(root)
        for now, found in ((0.0, chips), (1.0, later), (SEARCH_SECONDS + 1, later)):
            for number, chip in enumerate(found[: len(chips)]):
                for name, content in chip.items():
                    put(root / f"class/hwmon/hwmon{number}" / name, content)
            celsius = temperature.read(now)
            assert celsius is None or CELSIUS[0] <= celsius <= CELSIUS[1]
            assert temperature.source.isprintable()
        for name, content in (("name", b"coretemp"), ("temp1_label", b"Package id 0"), ("temp1_input", b"48000")):  # fmt: skip
            put(root / "class/hwmon/hwmon9" / name, content)
        celsius = temperature.read(now + 2 * SEARCH_SECONDS)
        assert celsius is not None
        assert celsius == 48.0 or chips


SUPPLIES = st.fixed_dictionaries(
    {
        "type": contents(b"Battery\n", b"Mains\n"),
        "scope": st.just(None) | contents(b"Device\n", b"System\n"),
        "status": contents(b"Discharging\n", b"Charging\n"),
    }
)


@examples(80)
@given(st.lists(SUPPLIES, max_size=3), st.booleans())
def test_only_a_battery_that_says_so_discharges(supplies: list[dict[str, Content]], is_a_file: bool) -> None:
    with folder() as root:
        if is_a_file:
            put(root / "class/power_supply", b"")
            supplies = []
        for number, supply in enumerate(supplies):
            for name, content in supply.items():
                put(root / f"class/power_supply/{number}" / name, content)
        found = is_on_battery(root)
    says_so = any(
        supply["type"] == b"Battery\n" and supply["status"] == b"Discharging\n" for supply in supplies
    )
    whole = any(
        supply == {"type": b"Battery\n", "scope": None, "status": b"Discharging\n"} for supply in supplies
    )
    stripped = any(
        isinstance(content, bytes) and b"Discharging" in content
        for supply in supplies
        for content in supply.values()
    )
    assert found or not whole
    assert not found or says_so or stripped


COOLED = GpuReading(
    gpu=GpuIdentity(id="chassis_x", name="x", vendor="chassis"),
    backend="chassis",
    fans=(FanReading(index=0, rpm=2000.0, label="fan1", rpm_is_measured=True),),
)
FASTER = GpuReading(
    gpu=COOLED.gpu, backend="chassis", fans=(FanReading(index=0, rpm=3000.0, rpm_is_measured=True),)
)
CPU_TIMES = contents(
    b"cpu  100 0 50 9000 3 0 1 0 0 0\ncpu0 1\n",
    b"cpu  90000 0 50 9100 3 0 1 0 0 0\n",
    b"cpu  99000 0 50 8000 3 0 1 0 0 0\n",
    b"cpu  1\n",
    b"cpu\n",
    b"cpu  nan inf -1 1e999 3 0 1 0 0 0\n",
)
PROCESSES = contents(
    b"7 (x) R 1 1 1 0 -1 0 0 0 0 0 100 0 0 0 20 0 1 0 5 0 0\n",
    b"7 (x) R 1 1 1 0 -1 0 0 0 0 0 99999999 0 0 0 20 0 1 0 5 0 0\n",
)


@pytest.fixture(scope="module", autouse=True)
def _psutil_looks_at_this_machine_again() -> Iterator[None]:
    yield
    psutil.PROCFS_PATH = "/proc"


@examples(50)
@given(st.lists(st.tuples(CPU_TIMES, PROCESSES), min_size=2, max_size=5))
@example([(b"cpu  90000 0 50 9100 3 0 1 0 0 0\n", None), (b"cpu  99000 0 50 8000 3 0 1 0 0 0\n", None)])
def test_any_cpu_times_give_percents_or_none(ticks: list[tuple[Content, Content]]) -> None:
    with folder() as root:
        watch, now = HostWatch(root, root), 1000.0
        psutil.PROCFS_PATH = str(root)
        for times, process in ticks:
            now += 11
            put(root / "stat", times)
            put(root / "7/stat", process)
            for reading in (COOLED, FASTER):
                found = watch.read((reading,), now)
                assert found is not None
                percents = [p.cpu_percent for p in found.processes or ()]
                for percent in (found.cpu_utilization_percent, *percents):
                    assert percent is None or 0 <= percent <= 100
                assert found.cpu_power_watts is None


ADDRESS = "0000:01:00.0"


@examples(80)
@given(
    contents(
        b"Runtime D3 status:          Enabled (fine-grained)\nVideo Memory:   Active\n",
        b"Runtime D3 status:          Disabled by default\n",
        b"Runtime D3 status:          Not supported\n",
    ),
    contents(b"auto\n", b"on\n"),
)
@example("directory", b"auto\n")
def test_only_a_clear_no_of_the_driver_holds_a_card_awake(power: Content, control: Content) -> None:
    with folder() as root:
        put(root / "driver/nvidia/gpus" / ADDRESS / "power", power)
        put(root / "bus/pci/devices" / ADDRESS / "power/control", control)
        found = can_suspend(PowerPaths.of(root, ADDRESS), root, ADDRESS)
    assert not found or (isinstance(control, bytes) and control.strip() == b"auto")
    if control == b"auto\n" and not found:
        assert isinstance(power, bytes)
        assert re.search(rb"disabled|not supported", power.lower())


@examples(50)
@given(contents(b"0x10de\n", b"0x1002\n"), contents(b"0x030000\n", b"0x040300\n"), contents(b"550.54.14\n"))
def test_a_card_is_nvidias_when_its_files_say_so_and_not_otherwise(
    vendor: Content, device_class: Content, version: Content
) -> None:
    with folder() as root:
        put(root / "bus/pci/devices" / ADDRESS / "vendor", vendor)
        put(root / "bus/pci/devices" / ADDRESS / "class", device_class)
        put(root / "module/nvidia/version", version)
        found, module = nvidia_addresses(root), module_version(root)
    assert found == (
        (ADDRESS,)
        if isinstance(vendor, bytes)
        and isinstance(device_class, bytes)
        and vendor.strip() == b"0x10de"
        and device_class[:64].strip().startswith((b"0x0300", b"0x0302"))
        else ()
    )
    assert module is None or 0 < len(module) <= 64


INFORMATION = (
    b"Model: \t\t NVIDIA GeForce RTX 3070\nIRQ:   \t\t 143\nDevice Minor: \t 0\nGPU Excluded:\t No\n"
)


@examples(60)
@given(
    st.dictionaries(
        st.sampled_from([ADDRESS, "0000:02:00.0", "10000:0A:00.0", "nonsense", "0000:01:00.9"]),
        contents(INFORMATION, INFORMATION.replace(b" 0\n", b" 1\n")),
        max_size=3,
    ),
    st.lists(st.sampled_from(["nvidia0", "nvidia1", "nvidia255", "card0", "nvidiactl"]), max_size=4),
)
def test_any_information_gives_a_node_the_address_of_one_of_the_cards_or_none(
    cards: dict[str, Content], nodes: Sequence[str]
) -> None:
    with folder() as root:
        for address, content in cards.items():
            put(root / "driver/nvidia/gpus" / address / "information", content)
        found = GpuNodes(sysfs=root, procfs=root)
        addresses = {node: found.address(node) for node in (*nodes, "nvidia0")}
    known = {address.lower() for address in cards if re.fullmatch(r"[0-9a-fA-F:]+\.[0-7]", address)}
    for node, address in addresses.items():
        assert address is None or (address in known and re.fullmatch("nvidia[0-9]+", node))
    if cards == {ADDRESS: INFORMATION}:
        assert addresses["nvidia0"] == ADDRESS


STATUS = b"Name:\tgpuwhyd\nCapPrm:\t0000000000000000\nCapEff:\t%016x\nCapBnd:\t000001ffffffffff\n"


@examples(60)
@given(contents(STATUS % 0x1FFFFFFFFFF, STATUS % 0, STATUS % 0x80004))
def test_any_status_tells_whether_all_descriptors_may_be_seen(status: Content) -> None:
    with folder() as root:
        put(root / "self/status", status)
        found = may_look_into_all(str(root))
    assert found is False or (isinstance(status, bytes) and b"CapEff:" in status)


@examples(40)
@given(st.integers(0, 2**64 - 1))
def test_all_descriptors_may_be_seen_with_two_capabilities(held: int) -> None:
    with folder() as root:
        put(root / "self/status", STATUS % held)
        found = may_look_into_all(str(root))
    assert found == (bool(held >> 19 & 1) and bool(held >> 1 & 1 or held >> 2 & 1))


@examples(60)
@given(
    contents(b"4242 1234 900 1 0 3000 0\n", b"1 -5\n", b"1 2.5\n", b"%d %d 1 1 0 1 0\n" % (10**18, 10**18))
)
def test_any_statm_gives_bytes_or_none(statm: Content) -> None:
    with folder() as root:
        put(root / "statm", statm)
        found = _resident_bytes(str(root / "statm"))
    assert found is None or 0 <= found < 2**63
    if statm == b"4242 1234 900 1 0 3000 0\n":
        assert found == 1234 * os.sysconf("SC_PAGESIZE")


@examples(25)
@given(contents(b"MainPID=4242\nActiveState=active\n"), st.sampled_from([0, 1]))
def test_whatever_systemctl_prints_are_properties_or_none(printed: Content, status: int) -> None:
    raw = printed if isinstance(printed, bytes) else b""
    with folder() as root:
        put(root / "printed", raw)
        systemctl = root / "systemctl"
        systemctl.write_text(f"#!/bin/sh\ncat {root}/printed\ncat {root}/printed >&2\nexit {status}\n")
        systemctl.chmod(0o755)
        with mock.patch.dict(os.environ, {"PATH": f"{root}:{os.environ['PATH']}"}):
            worked, output = command("systemctl", "show")
            properties = unit_properties("MainPID", "ActiveState")
    assert worked == (status == 0)
    assert output == output.strip()
    if printed == b"MainPID=4242\nActiveState=active\n":
        assert properties == ({"MainPID": "4242", "ActiveState": "active"} if worked else {})
