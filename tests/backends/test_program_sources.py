"""Where nvidia-smi's and rocm-smi's quantities come from, and why one is missing."""

from dataclasses import fields
from pathlib import Path

import pytest

from gpuwhyd.backends import nvidia_smi_sources, nvidia_smi_xml, rocm_smi_json, rocm_smi_sources
from gpuwhyd.backends.program_answer import Told
from gpuwhyd.model import FieldSource, GpuReading, Lack
from tests.backends.nvidia_smi_documents import document, gpu
from tests.backends.test_rocm_smi import CARD as AMD_CARD
from tests.backends.test_rocm_smi import answer
from tests.samples import sample_folders

LIMIT = ("temperature/gpu_temp_slow_threshold", "temperature/gpu_temp_tlimit")


def of_nvidia(changes: dict[str, str | None] | None = None) -> dict[str, FieldSource]:
    (told,) = nvidia_smi_xml.cards(document(gpu(changes or {})))
    return {source.quantity: source for source in nvidia_smi_sources.sources_of(told)}


def of_amd(changes: dict[str, str] | None = None, *, without: tuple[str, ...] = ()) -> dict[str, FieldSource]:
    card = {key: text for key, text in {**AMD_CARD, **(changes or {})}.items() if key not in without}
    (told,) = rocm_smi_json.cards(answer(card))
    return {source.quantity: source for source in rocm_smi_sources.sources_of(told)}


def values_of(reading: GpuReading) -> set[str]:
    names = {field.name for field in fields(reading)} | {"fan_percent", "fan_rpm"}
    names -= {"gpu", "backend", "state", "fans", "fan_mode"}
    return {name for name in names if getattr(reading, name) is not None}


def assert_sources_of_values(told: Told, sources: tuple[FieldSource, ...]) -> None:
    assert len({source.quantity for source in sources}) == len(sources)
    assert {source.quantity for source in sources if source.lack is None} == values_of(told.reading)


@pytest.mark.parametrize("sample", sample_folders("nvidia-smi-xml"))
def test_each_value_of_a_real_nvidia_card_and_nothing_else_has_a_source_without_lack(sample: Path) -> None:
    (told,) = nvidia_smi_xml.cards(sample.read_bytes())
    assert_sources_of_values(told, nvidia_smi_sources.sources_of(told))


@pytest.mark.parametrize("sample", sample_folders("rocm-smi-json"))
def test_each_value_of_a_real_amd_card_and_nothing_else_has_a_source_without_lack(sample: Path) -> None:
    for told in rocm_smi_json.cards(sample.read_bytes()):
        assert_sources_of_values(told, rocm_smi_sources.sources_of(told))


# -- nvidia-smi -------------------------------------------------------------------------------------------------------


def test_a_quantity_names_the_element_that_it_comes_from() -> None:
    sources = of_nvidia()
    assert sources["fan_percent"].source == "fan_speed"
    assert sources["power_watts"].source == "gpu_power_readings/instant_power_draw"
    assert sources["throttle_reasons"].source == "clocks_event_reasons"
    assert sources["processes"].source == "processes"
    assert sources["temperature_limit_celsius"].source == LIMIT[0]


def test_of_several_elements_the_one_with_the_value_is_named() -> None:
    sources = of_nvidia(
        {"gpu_power_readings/instant_power_draw": "0.00 W", LIMIT[0]: "N/A", LIMIT[1]: "30 C"}
    )
    assert sources["power_watts"].source == "gpu_power_readings/average_power_draw"
    assert sources["temperature_limit_celsius"].source == LIMIT[1]
    assert sources["temperature_limit_celsius"].lack is None


@pytest.mark.parametrize("text", ["N/A", "[N/A]", "[Not Supported]"])
def test_what_nvidia_smi_says_is_not_there_the_card_does_not_offer(text: str) -> None:
    source = of_nvidia({"temperature/memory_temp": text})["memory_temperature_celsius"]
    assert (source.source, source.lack, source.advice) == ("temperature/memory_temp", Lack.NO_SENSOR, "")


def test_an_element_that_the_document_lacks_may_come_with_a_newer_driver() -> None:
    path = "gpu_power_readings/average_power_draw"
    source = of_nvidia({path: None})["power_average_watts"]
    assert (source.source, source.lack) == (path, Lack.OLD_DRIVER)
    assert "newer" in source.advice


@pytest.mark.parametrize(
    ("text", "lack", "advice"),
    [
        ("[Insufficient Permissions]", Lack.NO_PERMISSION, "root only"),
        ("[Unknown Error]", Lack.UNREADABLE, "nvidia-smi says '[Unknown Error]'"),
        ("Requested functionality has been deprecated", Lack.UNREADABLE, "deprecated"),
        ("9999 C", Lack.UNREADABLE, "cannot be true"),
        ("", Lack.UNREADABLE, "cannot be true"),
        ("\x7f" * 200, Lack.UNREADABLE, "????"),
    ],
)
def test_what_stands_in_place_of_a_value_says_why(text: str, lack: Lack, advice: str) -> None:
    source = of_nvidia({"temperature/gpu_temp": text})["temperature_celsius"]
    assert source.lack is lack
    assert advice in source.advice
    assert source.advice.isprintable()
    assert len(source.advice) < 100


def test_what_can_be_mended_is_told_of_two_elements_without_a_value() -> None:
    sources = of_nvidia({LIMIT[0]: "N/A", LIMIT[1]: "[Unknown Error]"})
    assert sources["temperature_limit_celsius"].lack is Lack.UNREADABLE
    assert of_nvidia({LIMIT[0]: "N/A"})["temperature_limit_celsius"].lack is Lack.NO_SENSOR


def test_a_list_of_processes_that_is_withheld_says_so() -> None:
    assert of_nvidia({"processes": "Insufficient Permissions"})["processes"].lack is Lack.NO_PERMISSION
    assert of_nvidia({"processes": "N/A"})["processes"].lack is Lack.NO_SENSOR
    assert of_nvidia({"processes": ""})["processes"].lack is None


def test_a_card_without_a_fan_lacks_its_speed_for_that_reason() -> None:
    source = of_nvidia({"fan_speed": "N/A"})["fan_percent"]
    assert (source.lack, source.advice) == (Lack.NO_SENSOR, "it has no fan of its own")


# -- rocm-smi ---------------------------------------------------------------------------------------------------------


def test_a_quantity_names_the_key_that_it_comes_from() -> None:
    sources = of_amd()
    assert sources["fan_percent"].source == "Fan speed (level)"
    assert sources["power_watts"].source == "Average Graphics Package Power (W)"
    assert sources["temperature_celsius"].source == "Temperature (Sensor edge) (C)"


def test_of_several_keys_the_one_with_the_value_is_named() -> None:
    sources = of_amd({"Current Socket Graphics Package Power (W)": "N/A", "Fan speed (level)": "N/A"})
    assert sources["power_watts"].source == "Average Graphics Package Power (W)"
    assert (sources["fan_percent"].source, sources["fan_percent"].lack) == ("Fan speed (%)", None)


@pytest.mark.parametrize("text", ["N/A", "N/A (Secondary die)", "None", ""])
def test_what_rocm_smi_says_is_not_there_the_card_does_not_offer(text: str) -> None:
    source = of_amd({"Max Graphics Package Power (W)": text})["power_limit_watts"]
    assert (source.source, source.lack) == ("Max Graphics Package Power (W)", Lack.NO_SENSOR)


def test_what_it_does_not_speak_of_the_card_does_not_offer() -> None:
    source = of_amd(without=("VRAM Total Memory (B)",))["memory_total_bytes"]
    assert (source.source, source.lack, source.advice) == ("VRAM Total Memory (B)", Lack.NO_SENSOR, "")


def test_a_number_that_cannot_be_true_is_unreadable() -> None:
    source = of_amd({"Temperature (Sensor edge) (C)": "-300"})["temperature_celsius"]
    assert (source.lack, source.advice) == (Lack.UNREADABLE, "rocm-smi gives no number that can be true")


def test_a_fan_that_it_does_not_speak_of_may_stand_still() -> None:
    source = of_amd(without=("Fan RPM",))["fan_rpm"]
    assert (source.lack, source.advice) == (Lack.NO_SENSOR, "rocm-smi is silent on a fan that stands still")


def test_processes_are_told_of_those_that_compute() -> None:
    assert of_amd()["processes"].lack is Lack.NO_SENSOR
    (told,) = rocm_smi_json.cards(answer(AMD_CARD, system={"PID7": "a, 1, 1, 0, 0"}))
    assert {source.quantity: source.lack for source in rocm_smi_sources.sources_of(told)}["processes"] is None
