"""`gpuwhy doctor` about one card: why a value is missing, and where the others come from."""

import asyncio
from datetime import UTC, datetime

import pytest

from gpuwhyd.client.answer import Options
from gpuwhyd.client.ask import AskError, Daemon
from gpuwhyd.client.doctor import answer as doctor_answer
from gpuwhyd.client.doctor import gpu_form
from gpuwhyd.client.gpu_sources import gpu_lines, shortened
from gpuwhyd.client.terminal import Terminal
from gpuwhyd.model import Evidence, FieldSource, GpuState, Lack
from gpuwhyd.outputs.dbus_privacy import ANYONE
from gpuwhyd.outputs.dbus_sources import sources_view
from gpuwhyd.outputs.dbus_views import metrics as metrics_view
from gpuwhyd.outputs.dbus_views import summary
from tests.client import reports

PIPE = Terminal()


def card(*sources, evidence=(), of=reports.GPU, **changes):
    """What the daemon answers of one card, as doctor takes it."""
    report = reports.loud_report()
    reading = next(one for one in report.snapshot.readings if one.gpu == of)
    (shown,) = (one for one in metrics_view(report) if one["identity"]["id"] == of.id)
    told = None if sources == (None,) else [known(one) for one in sources_view(reading, sources)]
    explanation = reports.plain(reports.explanation(evidence=evidence))
    return gpu_form(known(shown) | changes, told, explanation) | {"number": 0}


def known(table):
    """Over the bus what is not known is left out."""
    return {key: value for key, value in table.items() if value is not None}


def source(quantity, name="file", lack=None, advice="", *, backend="nvml", of=reports.GPU):
    return FieldSource(
        gpu_id=of.id, backend=backend, quantity=quantity, source=name, lack=lack, advice=advice
    )


def section(gpu, title):
    """The lines under one title of a piped answer."""
    lines, found = gpu_lines(gpu, PIPE), []
    for line in lines[1:]:
        if line[2:14].strip():
            current = line[2:14].strip()
        if current == title:
            found.append(line[14:])
    return found


def test_the_headline_names_the_card_its_driver_and_its_state():
    (head, *_) = gpu_lines(card(*reports.sources()), PIPE)
    assert head == "GPU 0 NVIDIA GeForce RTX 3070 (pci_0000_01_00_0, nvidia 550.54.14, awake)"


def test_what_can_be_mended_is_told_first_with_what_to_do():
    told = section(card(*reports.sources()), "Missing")
    assert told[0] == (
        "temperature_limit_celsius: the driver is too old (nvmlDeviceGetMarginTemperature); "
        "NVIDIA driver 570 or newer has it"
    )
    assert told[1] == "memory_temperature_celsius: not offered by the card or its driver"
    assert told[2].startswith("hotspot_celsius, ")
    assert told[2].endswith(": nothing here reads it on this card")


@pytest.mark.parametrize(
    ("lack", "advice", "told"),
    [
        (Lack.NO_PERMISSION, "run it as root", "no permission (hwmon4/x); run it as root"),
        (Lack.UNREADABLE, "see dmesg", "cannot be read (hwmon4/x); see dmesg"),
        (Lack.NO_SENSOR, "", "not offered by the card or its driver"),
        (Lack.OLD_DRIVER, "", "the driver is too old (hwmon4/x)"),
    ],
)
def test_every_lack_is_in_words(lack, advice, told):
    gpu = card(source("power_watts"), source("hotspot_celsius", "hwmon4/x", lack, advice))
    assert f"hotspot_celsius: {told}" in section(gpu, "Missing")


def test_a_lack_of_a_newer_daemon_is_told_under_its_own_name():
    gpu = card(source("power_watts"))
    gpu["sources"].append({"quantity": "hotspot_celsius", "source": "f", "lack": "too-hot-to-touch"})
    assert "hotspot_celsius: too-hot-to-touch (f)" in section(gpu, "Missing")


def test_a_file_that_is_read_without_a_possible_value_says_so():
    told = section(card(source("hotspot_celsius", "temp2_input")), "Missing")
    assert "hotspot_celsius: it is read, but what comes cannot be true (temp2_input)" in told


def test_what_one_backend_lacks_and_another_reads_is_not_missing():
    gpu = card(
        source("power_watts", backend="amdgpu", lack=Lack.NO_PERMISSION),
        source("power_watts", backend="amdsmi"),
    )
    assert not any("power_watts" in line for line in section(gpu, "Missing"))


def test_of_two_backends_that_lack_a_quantity_the_one_that_can_be_mended_is_told():
    gpu = card(
        source("hotspot_celsius", "temp2_input", Lack.NO_SENSOR, backend="amdgpu"),
        source("hotspot_celsius", "amdsmi_get_temp", Lack.NO_PERMISSION, backend="amdsmi"),
    )
    assert "hotspot_celsius: no permission (amdsmi_get_temp)" in section(gpu, "Missing")


def test_readings_are_grouped_and_files_of_one_directory_shortened():
    gpu = card(
        source("fan_rpm", "hwmon/hwmon4/fan1_input", backend="amdgpu"),
        source("fan_percent", "hwmon/hwmon4/pwm1", backend="amdgpu"),
        source("temperature_celsius", "hwmon/hwmon4/temp1_input", backend="amdgpu"),
        source("utilization_percent", "gpu_busy_percent", backend="amdgpu"),
    )
    assert section(gpu, "Read by") == ["amdgpu"]
    assert section(gpu, "Fan") == ["hwmon/hwmon4/fan1_input, pwm1"]
    assert section(gpu, "Temperature") == ["hwmon/hwmon4/temp1_input"]
    assert section(gpu, "Use") == ["gpu_busy_percent"]


def test_where_two_backends_read_a_card_each_group_names_the_one_that_is_used():
    gpu = card(
        source("fan_rpm", "fan1_input", backend="amdgpu"),
        source("fan_rpm", "amdsmi_get_gpu_fan_rpms", backend="amdsmi"),
        source("power_watts", "power1_average", Lack.NO_SENSOR, backend="amdgpu"),
        source("power_watts", "amdsmi_get_power_info", backend="amdsmi"),
    )
    assert section(gpu, "Read by") == ["amdgpu, amdsmi"]
    assert section(gpu, "Fan") == ["fan1_input (amdgpu)"]
    assert section(gpu, "Power") == ["amdsmi_get_power_info (amdsmi)"]


def test_a_card_without_a_fan_says_so_and_misses_none():
    gpu = card(
        source("fan_percent", lack=Lack.NO_SENSOR, of=reports.SECOND_GPU),
        source("power_watts", of=reports.SECOND_GPU),
        of=reports.SECOND_GPU,
    )
    assert section(gpu, "Fan") == ["it has none of its own"]
    assert not any("fan" in line for line in section(gpu, "Missing"))


def test_a_sleeping_card_is_two_lines():
    gpu = card(
        source("", "power/runtime_status", Lack.ASLEEP, "it sleeps, and is not woken to be read"),
        state=GpuState.ASLEEP.value,
    )
    assert gpu_lines(gpu, PIPE)[1:] == ["  Not read    by nvml: it sleeps, and is not woken to be read"]


def test_a_sleeping_card_of_which_no_backend_tells_more_is_not_said_to_lack_anything():
    gpu = card(state=GpuState.ASLEEP.value)
    assert gpu_lines(gpu, PIPE)[1:] == ["  Not read    it sleeps, and is not woken to be read"]


def test_a_card_that_nobody_can_read_leads_to_what_the_backends_say():
    gpu = card(state=GpuState.UNKNOWN.value)
    assert gpu_lines(gpu, PIPE)[1:] == ["  Not read    what the backends say, above, may tell why"]


def test_a_card_that_is_let_alone_says_so_once():
    gpu = card(
        source("", "power/runtime_status", Lack.ASLEEP, "it is idle and let alone"),
        evidence=(Evidence(quantity="let_go", value=1.0),),
        state=GpuState.UNKNOWN.value,
    )
    (line,) = gpu_lines(gpu, PIPE)[1:]
    assert line.startswith("  Let alone   idle, and not read for up to two minutes")


@pytest.mark.parametrize(
    ("evidence", "title", "told"),
    [
        ([("kept_awake_by", "nvtop"), ("kept_awake_by", "btop")], "Kept awake", "by nvtop, btop"),
        ([("kept_awake_by_gpuwhyd", 1.0)], "Kept awake", "by gpuwhyd"),
        ([("kept_busy_by", "nvtop")], "Kept busy", "by nvtop"),
    ],
)
def test_what_keeps_a_card_awake_is_named(evidence, title, told):
    gpu = card(
        *reports.sources(), evidence=[Evidence(quantity=name, value=value) for name, value in evidence]
    )
    assert section(gpu, title) == [told]


class OlderDaemon(Daemon):
    """Answers what it knows, as the bus does for it."""

    def __init__(self, **answers):
        self.answers = answers

    async def _ask(self, member, signature, body):
        if member not in self.answers:
            raise AskError(f"no method {member}")
        return self.answers[member]


def test_a_daemon_that_does_not_know_sources_is_told_of_all_the_same():
    health, shown = reports.health(version="0.0.9"), summary(reports.loud_report(), 2.0, ANYONE)
    old = OlderDaemon(
        GetHealth=health, GetSummary=reports.plain(shown), GetMetrics=metrics_view(reports.loud_report())
    )
    options = Options(command="doctor", bus="system", terminal=PIPE, now=datetime.now(UTC))
    answer = asyncio.run(doctor_answer(old, options))
    assert "gpuwhyd is 0.0.9" in answer.lines[1]
    assert any(line.startswith("  Missing     hotspot_celsius") for line in answer.lines)


def test_without_sources_of_an_older_daemon_the_missing_are_still_listed():
    (told,) = section(card(None), "Missing")
    assert told.startswith("hotspot_celsius, ")


def test_a_quantity_of_a_newer_daemon_is_shown_apart():
    gpu = card(source("power_watts"))
    gpu["sources"].append({"quantity": "coil_whine_db", "source": "ear", "used": True, "backend": "nvml"})
    assert section(gpu, "Other") == ["ear"]


def test_only_the_first_of_files_in_one_directory_is_shown_with_it_and_each_once():
    names = ["hwmon/hwmon4/fan1_input", "hwmon/hwmon4/pwm1", "hwmon/hwmon4/pwm1", "gpu_metrics", "a/b", "c/d"]
    assert shortened(names) == ["hwmon/hwmon4/fan1_input", "pwm1", "gpu_metrics", "a/b", "c/d"]


@pytest.mark.parametrize(("percent", "is_missing"), [(90.0, False), (None, True)])
def test_what_the_driver_lacks_and_the_processes_tell_is_not_missing(percent, is_missing):
    """As of xe's cards: how much they work is known of those who use them."""
    lacking = source("utilization_percent", "", Lack.NO_SENSOR, backend="xe")
    gpu = card(lacking) | {
        "utilization_percent": percent,
        "missing": [] if percent else ["utilization_percent"],
    }
    missing = " ".join(section(gpu, "Missing")).replace(",", " ").replace(":", " ").split()
    assert ("utilization_percent" in missing) is is_missing


def test_a_fan_of_the_machine_does_not_miss_what_only_cards_have():
    gpu = card(source("fan_rpm", backend="chassis"), source("temperature_celsius", lack=Lack.NO_SENSOR))
    gpu["identity"] = {**gpu["identity"], "vendor": "chassis"}
    gpu["missing"] = ["memory_used_bytes", "temperature_celsius"]
    gpu["temperature_celsius"] = None
    (told,) = section(gpu, "Missing")
    assert told.startswith("temperature_celsius: ")
