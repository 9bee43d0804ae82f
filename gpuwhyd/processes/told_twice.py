"""A card's processes, told by the kernel (DRM clients and KFD) and by the vendor's library: each counts once. Pure.

Only AMD's cards are told twice. Which source wins:

| field | the kernel | the library |
|---|---|---|
| memory | holds: the larger of KFD's and the DRM clients' | only where the kernel has none |
| engine time | holds | where a DRM client is met for the first time; never of a process that computes through KFD, whose compute the library leaves out |
| encoder and decoder | hold | where the kernel has none |
| kind | holds | where the kernel cannot tell |
| who | all who hold a node and all of KFD's list | who works and is in no sweep of /proc yet |

Who rests for the library and is unknown to the kernel uses another card, or none. While the kernel's DRM clients cannot be
read, the library's list takes their place, with KFD's memory and compute in it, so that shares do not jump meanwhile.
NVIDIA's own driver tells nothing in fdinfo: of its cards NVML's list is the only one, and no client is read.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

from gpuwhyd.model import GpuProcess
from gpuwhyd.processes.drm_clients import Work


def told_once(
    kernel: Sequence[GpuProcess],
    library: Sequence[GpuProcess],
    *,
    computing: Collection[int],
    holding: Collection[int],
) -> list[GpuProcess]:
    """The kernel's list with what the library knows better. `computing`: the pids that KFD lists; `holding`: those that
    have a node of the card open, whose work may be booked to another process that shares it.
    """
    theirs = {process.pid: process for process in library}
    processes = [
        process
        if (other := theirs.pop(process.pid, None)) is None
        else _filled(process, other, computes=process.pid in computing)
        for process in kernel
    ]
    processes += [
        process
        for process in theirs.values()
        if process.pid not in holding and (process.engine_percent or process.encoder_percent)
    ]
    return processes


def as_work(library: Sequence[GpuProcess], computing: Collection[int]) -> dict[int, Work]:
    """The library's list in place of the DRM clients. Of a process that computes it knows the graphics: none, if it is
    silent.
    """
    return {
        process.pid: Work(
            engine_percent=(process.engine_percent or 0.0)
            if process.pid in computing
            else process.engine_percent,
            encoder_percent=process.encoder_percent,
            decoder_percent=process.decoder_percent,
            memory_used_bytes=process.memory_used_bytes,
            compute="compute" in process.kind,
            graphics="graphics" in process.kind,
            is_idler=process.kind == "holder",
        )
        for process in library
    }


def _filled(process: GpuProcess, other: GpuProcess, *, computes: bool) -> GpuProcess:
    engine, encoder, decoder = process.engine_percent, process.encoder_percent, process.decoder_percent
    if engine is None and not computes:
        engine = other.engine_percent
    memory = process.memory_used_bytes
    filled = replace(
        process,
        kind=other.kind if process.kind == "unknown" else process.kind,
        memory_used_bytes=other.memory_used_bytes if memory is None else memory,
        engine_percent=engine,
        encoder_percent=other.encoder_percent if encoder is None else encoder,
        decoder_percent=other.decoder_percent if decoder is None else decoder,
    )
    return process if filled == process else filled
