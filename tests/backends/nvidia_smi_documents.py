"""Documents of nvidia-smi as a test wants them."""

from collections.abc import Mapping

from gpuwhyd.backends.nvidia_smi_xml import cards
from gpuwhyd.model import GpuReading

NA = "N/A"

CARD: dict[str, str] = {
    "product_name": "NVIDIA GeForce RTX 3070",
    "uuid": "GPU-00000000-0000-4000-8000-000000000000",
    "vbios_version": "94.04.25.00.1c",
    "pci/pci_bus_id": "00000000:01:00.0",
    "fan_speed": "30 %",
    "performance_state": "P8",
    "clocks_event_reasons/clocks_event_reason_gpu_idle": "Active",
    "clocks_event_reasons/clocks_event_reason_sw_power_cap": "Not Active",
    "fb_memory_usage/total": "8192 MiB",
    "fb_memory_usage/reserved": "256 MiB",
    "fb_memory_usage/used": "512 MiB",
    "utilization/gpu_util": "0 %",
    "utilization/memory_util": "0 %",
    "utilization/encoder_util": "0 %",
    "utilization/decoder_util": "0 %",
    "temperature/gpu_temp": "35 C",
    "temperature/gpu_temp_tlimit": NA,
    "temperature/gpu_temp_slow_threshold": "95 C",
    "temperature/memory_temp": NA,
    "gpu_power_readings/average_power_draw": "22.00 W",
    "gpu_power_readings/instant_power_draw": "21.50 W",
    "gpu_power_readings/current_power_limit": "220.00 W",
    "clocks/graphics_clock": "210 MHz",
    "clocks/mem_clock": "405 MHz",
    "max_clocks/graphics_clock": "2100 MHz",
    "max_clocks/mem_clock": "7001 MHz",
    "processes": "",
}
"""An idle desktop card as driver 550 tells it: element's path -> text."""


def gpu(
    changes: Mapping[str, str | None] = {}, *, address: str = "00000000:01:00.0", inside: str = ""
) -> str:
    """One card's element. `changes`: by path, None leaves an element out; `inside`: more elements, as they are."""
    told: dict[str, str | None] = {**CARD, "pci/pci_bus_id": address, **changes}
    groups: dict[str, list[str]] = {}
    for path, text in told.items():
        group, _, name = path.rpartition("/")
        if text is not None:
            groups.setdefault(group, []).append(f"<{name}>{text}</{name}>")
    elements = groups.pop("", [])
    elements += [f"<{group}>{''.join(found)}</{group}>" for group, found in groups.items()]
    return f'<gpu id="{address}">{"".join(elements)}{inside}</gpu>'


def document(*gpus: str, driver: str = "550.54.14") -> bytes:
    return (
        '<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">\n<nvidia_smi_log>\n'
        f"<driver_version>{driver}</driver_version>{''.join(gpus)}\n</nvidia_smi_log>\n"
    ).encode()


def process(
    pid: object, kind: str = "C", memory: str = "1024 MiB", *, instance: str = NA, compute: str = NA
) -> str:
    return (
        f"<process_info><gpu_instance_id>{instance}</gpu_instance_id>"
        f"<compute_instance_id>{compute}</compute_instance_id><pid>{pid}</pid><type>{kind}</type>"
        f"<process_name>x</process_name><used_memory>{memory}</used_memory></process_info>"
    )


def readings(document: bytes) -> tuple[GpuReading, ...]:
    return tuple(card.reading for card in cards(document))
