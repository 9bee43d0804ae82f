"""What nvidia-smi writes, of all its drivers, as NVML would say it."""

from dataclasses import replace
from pathlib import Path

import pytest

from gpuwhyd.backends.nvidia_smi_stream import DOCUMENT_LIMIT_BYTES, DocumentError, DocumentStream
from gpuwhyd.backends.nvidia_smi_xml import normal_address
from gpuwhyd.model import FanMode, GpuReading, GpuState
from tests.backends.nvidia_smi_documents import CARD, document, gpu, process, readings
from tests.samples import sample_folders

MIB = 1 << 20
FIRST, SECOND = document(gpu({"fan_speed": "1 %"})), document(gpu({"fan_speed": "2 %"}))


def one(changes: dict[str, str | None] | None = None, *, inside: str = "") -> GpuReading:
    (reading,) = readings(document(gpu(changes or {}, inside=inside)))
    return reading


# -- quantities -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "N/A",
        "[N/A]",
        "[Not Supported]",
        "Not Found]",
        "[Unknown Error]",
        "Unknown Error",
        "Requested functionality has been deprecated",
        "Insufficient Permissions",
        "ERR!",
        "",
        "35",
        "35 F",
        "35 C 36 C",
        "1e3 C",
        "nan C",
        "inf C",
        "0x23 C",
        "٣٥ C",
        "99999999999999999999 C",
        "201 C",
        "-51 C",
    ],
)
def test_what_is_no_temperature_is_none(text: str) -> None:
    assert one({"temperature/gpu_temp": text}).temperature_celsius is None


def test_white_space_around_a_value_is_none_of_it() -> None:
    assert one({"temperature/gpu_temp": "\n\t 35 C \n"}).temperature_celsius == 35.0


@pytest.mark.parametrize("quantity", sorted({path for path in CARD if "/" in path} - {"pci/pci_bus_id"}))
def test_an_element_that_is_not_there_costs_its_value_only(quantity: str) -> None:
    whole, less = one(), one({quantity: None})
    assert less.gpu == whole.gpu
    assert less.state is GpuState.AWAKE
    assert (less.fans, less.performance_state) == (whole.fans, whole.performance_state)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("power_readings/power_draw", "gpu_power_readings/instant_power_draw"),
        ("gpu_power_readings/power_draw", "gpu_power_readings/instant_power_draw"),
        ("power_readings/enforced_power_limit", "gpu_power_readings/current_power_limit"),
        ("gpu_power_readings/enforced_power_limit", "gpu_power_readings/current_power_limit"),
    ],
)
def test_renamed_elements_are_the_same_quantity(old: str, new: str) -> None:
    renamed = one({new: None, old: CARD[new]})
    assert (renamed.power_watts, renamed.power_limit_watts) == (21.5, 220.0)


def test_instant_power_is_better_than_average_and_average_better_than_none() -> None:
    assert (one().power_watts, one().power_average_watts) == (21.5, 22.0)
    without = one({"gpu_power_readings/instant_power_draw": "N/A"})
    assert (without.power_watts, without.power_average_watts) == (22.0, 22.0)


def test_a_card_that_draws_nothing_does_not_measure() -> None:
    assert one({"gpu_power_readings/instant_power_draw": "0.00 W"}).power_watts == 22.0


def test_the_limit_that_was_asked_for_is_not_the_one_that_holds() -> None:
    changes = {"gpu_power_readings/current_power_limit": None, "power_readings/power_limit": "250.00 W"}
    assert one(changes).power_limit_watts is None


def test_the_power_of_a_whole_module_is_not_the_gpus() -> None:
    changes: dict[str, str | None] = {path: None for path in CARD if "power" in path}
    changes |= {"module_power_readings/instant_power_draw": "700.00 W"}
    assert (one(changes).power_watts, one(changes).power_limit_watts) == (None, None)


def test_newer_cards_tell_the_margin_to_their_limit() -> None:
    changes = {"temperature/gpu_temp_slow_threshold": None, "temperature/gpu_temp_tlimit": "48 C"}
    assert one(changes).temperature_limit_celsius == 83.0
    assert one({**changes, "temperature/gpu_temp": "N/A"}).temperature_limit_celsius is None
    assert one({"temperature/gpu_temp_slow_threshold": "-2 C"}).temperature_limit_celsius is None


@pytest.mark.parametrize(
    ("text", "state"), [("P0", 0), ("P15", 15), ("P16", None), ("P", None), ("Unknown", None)]
)
def test_performance_states(text: str, state: int | None) -> None:
    assert one({"performance_state": text}).performance_state == state


@pytest.mark.parametrize(
    ("used", "total", "expected"),
    [
        ("512 MiB", "8192 MiB", (512 * MIB, 8192 * MIB)),
        ("512 MB", "8192 MB", (512 * MIB, 8192 * MIB)),
        ("0 MiB", "8192 MiB", (0, 8192 * MIB)),
        ("N/A", "8192 MiB", (None, None)),
        ("Insufficient Permissions", "Insufficient Permissions", (None, None)),
        ("9000 MiB", "8192 MiB", (None, None)),
        ("0 MiB", "0 MiB", (None, None)),
        ("-1 MiB", "8192 MiB", (None, None)),
        ("1 W", "8192 MiB", (None, None)),
    ],
)
def test_memory(used: str, total: str, expected: tuple[int | None, int | None]) -> None:
    reading = one({"fb_memory_usage/used": used, "fb_memory_usage/total": total})
    assert (reading.memory_used_bytes, reading.memory_total_bytes) == expected


@pytest.mark.parametrize(
    ("text", "mode", "percents"),
    [
        ("57 %", FanMode.UNKNOWN, [57.0]),
        ("0 %", FanMode.UNKNOWN, [0.0]),
        ("112 %", FanMode.UNKNOWN, [112.0]),
        ("N/A", FanMode.NONE, []),
        ("[N/A]", FanMode.NONE, []),
        ("[Not Supported]", FanMode.NONE, []),
        ("[Unknown Error]", FanMode.UNKNOWN, []),
        ("4294967295 %", FanMode.UNKNOWN, []),
    ],
)
def test_a_fan_that_cannot_be_read_is_not_one_that_is_not_there(
    text: str, mode: FanMode, percents: list[float]
) -> None:
    reading = one({"fan_speed": text})
    assert (reading.fan_mode, [fan.percent for fan in reading.fans]) == (mode, percents)


# -- throttle reasons, processes, identity ----------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["event", "throttle"])
def test_throttle_reasons_have_nvmls_names_and_order_under_either_name(word: str) -> None:
    group = f"clocks_{word}_reasons"
    active = ("sw_thermal_slowdown", "gpu_idle", "hw_power_brake_slowdown", "sw_power_cap", "brand_new_kind")
    changes: dict[str, str | None] = {path: None for path in CARD if path.startswith("clocks_event")}
    changes |= {f"{group}/clocks_{word}_reason_{name}": "Active" for name in active}
    changes |= {f"{group}/clocks_{word}_reason_hw_slowdown": "Not Active"}
    assert one(changes).throttle_reasons == ("power-cap", "sw-thermal", "power-brake", "brand-new-kind")


def test_reasons_that_are_not_told_are_not_none_at_all() -> None:
    changes: dict[str, str | None] = {path: None for path in CARD if path.startswith("clocks_event")}
    assert one(changes).throttle_reasons is None
    assert one({**changes, "clocks_event_reasons": "N/A"}).throttle_reasons is None
    assert one().throttle_reasons == ()


def test_counters_of_reasons_are_no_reasons() -> None:
    inside = "<clocks_event_reasons_counters><clocks_event_reasons_counters_sw_power_cap>Active"
    inside += "</clocks_event_reasons_counters_sw_power_cap></clocks_event_reasons_counters>"
    assert one(inside=inside).throttle_reasons == ()


def test_processes_by_pid_with_kind_and_memory() -> None:
    listing = (
        process(4242) + process(17, "G", "N/A") + process(99, "C+G", "3 MiB") + process(5, "M+C", "[N/A]")
    )
    found = one({"processes": listing}).processes
    assert [(p.pid, p.kind, p.memory_used_bytes) for p in found or ()] == [
        (5, "mps", None),
        (17, "graphics", None),
        (99, "compute+graphics", 3 * MIB),
        (4242, "compute", 1024 * MIB),
    ]
    assert {p.engine_percent for p in found or ()} == {None}


def test_a_process_in_several_lists_counts_once() -> None:
    listing = process(7, "C", "100 MiB") + process(7, "G", "40 MiB")
    (found,) = one({"processes": listing}).processes or ()
    assert (found.kind, found.memory_used_bytes) == ("compute+graphics", 100 * MIB)


def test_a_process_on_several_mig_instances_has_the_memory_of_all() -> None:
    listing = "".join(process(7, "C", "100 MiB", instance=gi, compute="0") for gi in ("2", "3"))
    (found,) = one({"processes": listing}).processes or ()
    assert found.memory_used_bytes == 200 * MIB


@pytest.mark.parametrize("pid", ["-1", "0", "N/A", "", "4194305", "9" * 30, "1e3", "٣"])
def test_a_process_without_a_pid_is_left_out(pid: str) -> None:
    (found,) = one({"processes": process(pid) + process(7)}).processes or ()
    assert found.pid == 7


@pytest.mark.parametrize(
    ("listing", "known"),
    [
        ("", True),
        ("\n\t\t", True),
        ("None", True),
        ("N/A", False),
        ("Insufficient Permissions", False),
        (None, False),
    ],
)
def test_nobody_is_not_the_same_as_not_told(listing: str | None, known: bool) -> None:
    assert one({"processes": listing}).processes == (() if known else None)


def test_a_partitioned_card_has_its_own_values_and_not_its_parts() -> None:
    part = "<mig_devices><mig_device><index>0</index><fb_memory_usage><total>10 MiB</total><used>9 MiB</used>"
    part += "</fb_memory_usage><utilization><gpu_util>7 %</gpu_util></utilization></mig_device></mig_devices>"
    changes = {f"utilization/{name}_util": "N/A" for name in ("gpu", "memory", "encoder", "decoder")}
    reading = one(changes, inside=part)
    assert (reading.memory_total_bytes, reading.utilization_percent) == (8192 * MIB, None)


def test_a_lost_card_is_lost() -> None:
    changes = {path: "GPU is lost" for path in CARD if path not in {"pci/pci_bus_id", "processes"}}
    reading = one(changes)
    assert reading.state is GpuState.LOST
    assert (reading.gpu.pci_address, reading.temperature_celsius) == ("0000:01:00.0", None)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("00000000:0C:00.0", "0000:0c:00.0"),
        ("0000:01:00.0", "0000:01:00.0"),
        ("00010000:E1:00.0", "10000:e1:00.0"),
        ("0C:00.0", None),
        ("", None),
        ("N/A", None),
    ],
)
def test_addresses_are_the_kernels(text: str, address: str | None) -> None:
    assert normal_address(text) == address


def test_a_card_without_an_address_is_left_out() -> None:
    cards = readings(document(gpu(address="N/A"), gpu(address="00000000:02:00.0")))
    assert [card.gpu.id for card in cards] == ["pci_0000_02_00_0"]


def test_names_that_are_none() -> None:
    changes = {"product_name": "[Unknown Error]", "uuid": "N/A", "vbios_version": "\x7f"}
    (reading,) = readings(document(gpu(changes), driver="N/A"))
    told = reading.gpu
    assert (told.name, told.uuid, told.vbios_version, told.driver) == ("NVIDIA GPU", None, None, None)


# -- documents --------------------------------------------------------------------------------------------------------


def test_a_piece_without_its_root_is_read() -> None:
    (reading,) = readings(gpu().encode())
    assert (reading.gpu.driver, reading.temperature_celsius) == (None, 35.0)
    assert len(readings((gpu() + gpu(address="00000000:02:00.0")).encode())) == 2
    inner = gpu().removeprefix('<gpu id="00000000:01:00.0">').removesuffix("</gpu>")
    assert readings(inner.encode())[0].gpu.pci_address == "0000:01:00.0"


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
        b"<nvidia_smi_log></nvidia_smi_log>",
        b"<product_name>Card of a piece without an address</product_name>",
    ],
)
def test_a_document_without_cards_has_none(damage: bytes) -> None:
    assert readings(damage) == ()


@pytest.mark.parametrize(
    "damage",
    [
        FIRST[:-40],
        FIRST.replace(b"</gpu>", b"</GPU>"),
        FIRST.replace(b"35 C", b"35 \0 C"),
        FIRST.replace(b"35 C", b"35 &bomb; C"),
        b"<" * 100,
        b"<a>" * 5000,
    ],
)
def test_a_damaged_document_is_refused(damage: bytes) -> None:
    with pytest.raises(DocumentError):
        readings(damage)


def test_entities_are_refused_in_any_encoding() -> None:
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;">]>'
    text = f'<?xml version="1.0" ?>{bomb}<nvidia_smi_log>{gpu({"product_name": "&c;"})}</nvidia_smi_log>'
    for encoding in ("utf-8", "utf-16", "utf-16-be"):
        with pytest.raises(DocumentError):
            readings(text.encode(encoding))
    declared = text.replace('"1.0" ?', '"1.0" encoding="cp037" ?')
    assert readings(declared.encode("cp037")) == ()


def test_a_huge_document_is_refused_before_it_is_read() -> None:
    with pytest.raises(DocumentError, match="bytes"):
        readings(b" " * (DOCUMENT_LIMIT_BYTES + 1))


def percents(document: bytes | None) -> list[float | None]:
    return [] if document is None else [reading.fan_percent for reading in readings(document)]


@pytest.mark.parametrize("step", [1, 7, 100, 10_000])
def test_a_stream_is_cut_into_documents_wherever_it_breaks(step: int) -> None:
    stream, data = DocumentStream(), FIRST + SECOND
    found = [percents(stream.feed(data[at : at + step])) for at in range(0, len(data), step)]
    assert [percent for percent in found if percent] == ([[2.0]] if step == 10_000 else [[1.0], [2.0]])


def test_what_was_cut_off_goes_with_what_comes_after_it() -> None:
    stream = DocumentStream()
    assert percents(stream.feed(FIRST[:-30] + SECOND)) == [2.0]
    assert percents(stream.feed(b"some noise" + FIRST)) == [1.0]
    assert stream.feed(b"") is None


def test_a_document_that_does_not_end_is_not_kept() -> None:
    stream = DocumentStream()
    assert stream.feed(b"x" * DOCUMENT_LIMIT_BYTES) is None
    with pytest.raises(DocumentError):
        stream.feed(b"x")
    assert len(stream.rest) <= DOCUMENT_LIMIT_BYTES
    assert percents(stream.feed(FIRST)) == [1.0]


@pytest.mark.parametrize("sample", sample_folders("nvidia-smi-xml"))
def test_a_sample_is_read_from_its_piece_alike(sample: Path) -> None:
    text = sample.read_bytes()
    piece = text[text.index(b"<gpu ") : text.rindex(b"</gpu>") + len(b"</gpu>")]
    (whole,), (part,) = readings(text), readings(piece)
    assert replace(part, gpu=whole.gpu) == whole
    assert part.temperature_celsius is not None
