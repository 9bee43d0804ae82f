"""Which GPU is meant, and how it is called in tables."""

from collections.abc import Mapping, Sequence
from typing import cast

from gpuwhyd.client.ask import AskError, Plain
from gpuwhyd.client.quantities import number


def gpus_of(summary: Plain) -> list[Plain]:
    """The GPUs of a GetSummary answer, each with its `number`: its place in it, as `--gpu` takes it."""
    gpus = cast("Sequence[Plain]", summary.get("gpus") or ())
    return [{"number": index, **gpu} for index, gpu in enumerate(gpus)]


def chosen_gpus(summary: Plain, wanted: str | None) -> list[Plain]:
    """All GPUs, or the one that `wanted` names by its id, PCI address or number.

    Raises AskError when there is none, or not this one; the message lists those that are known.
    """
    gpus = gpus_of(summary)
    if not gpus:
        raise AskError("No GPU found. What gpuwhyd looked for, and what is missing: gpuwhy doctor")
    if wanted is None:
        return gpus
    found = [gpu for gpu in gpus if is_gpu(gpu, wanted)]
    if not found:
        known = ", ".join(f"{gpu.get('id')} ({gpu_name(gpu)})" for gpu in gpus)
        raise AskError(f"There is no GPU {wanted}. Known: {known}")
    return found


def is_gpu(gpu: Mapping[str, object], wanted: str) -> bool:
    """Whether `wanted` (`pci_0000_01_00_0`, `0000:01:00.0`, `01:00.0`, `1`, an object path) names this GPU."""
    gpu_id = str(gpu.get("id", ""))
    as_id = "pci_" + wanted.lower().replace(":", "_").replace(".", "_")
    return wanted in {gpu_id, str(gpu.get("number")), gpu.get("gpu")} or gpu_id in {
        as_id,
        as_id.replace("pci_", "pci_0000_", 1),
    }


def gpu_name(gpu: Mapping[str, object]) -> str:
    """`0 RTX 3070`: number and name without the words that every card of the maker has."""
    name = str(gpu.get("name") or gpu.get("id") or "GPU")
    for prefix in ("NVIDIA ", "AMD ", "Intel ", "GeForce ", "Radeon "):
        name = name.removeprefix(prefix)
    return f"{gpu['number']} {name}" if "number" in gpu else name


def loudest_first(gpus: Sequence[Plain]) -> list[Plain]:
    """Those with a spike before the others, the fastest fan first."""
    return sorted(
        gpus, key=lambda gpu: (not gpu.get("spike_active"), -(number(gpu.get("fan_percent")) or 0.0))
    )


def fan_is_up(gpus: Sequence[Plain]) -> bool:
    return any(gpu.get("spike_active") for gpu in gpus)
