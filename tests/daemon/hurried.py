"""The whole daemon with shorter pauses than a configuration may ask for, so that an hour's ticks pass in seconds.

    python hurried.py FOLDER BUS SECONDS

FOLDER has sys, proc, state and gpuwhyd.toml.
"""

import asyncio
import logging
import sys
from dataclasses import replace
from pathlib import Path

from gpuwhyd.backends.catalog import BACKEND_NAMES
from gpuwhyd.config import load
from gpuwhyd.daemon import Daemon, Options


async def run(folder: Path, address: str, seconds: float) -> None:
    options = Options(
        config=folder / "gpuwhyd.toml",
        bus=address,
        sysfs=folder / "sys",
        procfs=folder / "proc",
        state_dir=folder / "state",
        journal=False,
    )
    settings = load(options.config, backends=BACKEND_NAMES)
    pauses = replace(
        settings.sampling,
        interval_seconds=seconds,
        fast_interval_seconds=seconds,
        asleep_interval_seconds=seconds,
    )
    await Daemon(options, replace(settings, sampling=pauses)).run()


logging.basicConfig(level=logging.INFO)
asyncio.run(run(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
