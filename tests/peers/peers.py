"""Other monitors of NVIDIA cards as PyPI has them, run as programs over the fake driver."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PEERS = Path(sys.prefix) / "peers"
"""Where script/setup puts them: a folder of their own, with a nvidia-ml-py of their own."""

_TELL = """
import json, sys
import nvitop

def of_processes(device):
    return {
        str(pid): {
            "type": process.type,
            "username": process.username(),
            "name": process.name(),
            "gpu_memory": process.gpu_memory(),
            "sm": process.gpu_sm_utilization(),
            "memory": process.gpu_memory_utilization(),
            "encoder": process.gpu_encoder_utilization(),
            "decoder": process.gpu_decoder_utilization(),
            "gpu_instance": process.gpu_instance_id(),
        }
        for pid, process in device.processes().items()
    }

def of_device(device):
    snapshot = device.as_snapshot()
    return {key: getattr(snapshot, key) for key in device.SNAPSHOT_KEYS} | {
        "processes": of_processes(device),
        "mig_devices": [of_device(part) for part in device.mig_devices()] if device.is_mig_mode_enabled() else [],
    }

json.dump([of_device(device) for device in nvitop.PhysicalDevice.all()], sys.stdout)
"""


def run(*arguments: str, library_folder: Path) -> str:
    """What Python prints when run so, with the fake driver's library for the driver's. It must not complain."""
    assert PEERS.is_dir(), f"{PEERS} is missing: run script/setup test"
    done = subprocess.run(
        [sys.executable, *arguments],
        env={
            "PYTHONPATH": str(PEERS),
            "LD_LIBRARY_PATH": str(library_folder),
            "PATH": os.environ["PATH"],
            "TERM": "dumb",
            "LANG": "C.UTF-8",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", f"nvitop complains so about functions that the driver lacks:\n{done.stderr}"
    return done.stdout


def gpustat(library_folder: Path) -> dict[str, Any]:
    """`gpustat --json`."""
    return json.loads(run("-m", "gpustat", "--json", library_folder=library_folder))


def nvitop(library_folder: Path) -> list[dict[str, Any]]:
    """All that nvitop's API tells of each card and of its MIG devices; None where it says N/A."""
    return _without_na(json.loads(run("-c", _TELL, library_folder=library_folder)))


def nvitop_once(library_folder: Path) -> str:
    """`nvitop --once`: the table that people see."""
    return run("-m", "nvitop", "--once", "--no-unicode", library_folder=library_folder)


def example(library_folder: Path) -> str:
    """example.py of nvidia-ml-py."""
    return run(str(PEERS / "example.py"), library_folder=library_folder)


def _without_na(told: Any) -> Any:
    if isinstance(told, dict):
        return {key: _without_na(value) for key, value in told.items()}
    if isinstance(told, list):
        return [_without_na(value) for value in told]
    return None if told == "N/A" else told
