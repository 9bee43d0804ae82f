"""The command `gpuwhyd`: the daemon, and what installs, checks and reloads it."""

import argparse
import gc
import logging
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuwhyd import __version__
from gpuwhyd.errors import ConfigError, GpuwhydError
from gpuwhyd.log import LineLimit
from gpuwhyd.outputs.journal_log import STDERR, JournalLog, is_the_journal
from gpuwhyd.standard_output import take_every_name, writing

if TYPE_CHECKING:  # the daemon's parts are loaded only by what needs them
    from gpuwhyd.daemon import Options

EX_CONFIG = 78
"""sysexits.h: something in the configuration is wrong."""


SWITCH_SECONDS = 0.0005
"""How long a worker thread that computes keeps the interpreter while the event loop wants it. Python's 5 ms pass at each call
of the loop that writes or reads, so that with a busy worker a client's answer takes ten times as long."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; gives its exit status: 0 done, 1 `check` found faults, 2 error, 78 wrong configuration."""
    take_every_name()
    options = _parser().parse_args(arguments)
    _set_up_log(options.log_level)
    try:
        return _run(options)
    except ConfigError as error:
        return _say(error, EX_CONFIG)
    except GpuwhydError as error:
        return _say(error, 2)
    except KeyboardInterrupt:
        return 130


def _run(options: argparse.Namespace) -> int:
    if options.command == "reload":
        return _run_loop(_reload(options.bus))
    if options.command == "record":
        return _run_loop(_record(options))
    if options.command == "replay":
        return _replay(options.file, options.config, as_json=options.json)
    if options.command in {"install", "uninstall", "check"}:
        return _installation(options)
    if options.check_config:
        return _check_config(options.config)
    return _run_loop(_serve(options))


def _run_loop(work: Coroutine[Any, Any, int]) -> int:
    """Without TLS, which nothing here speaks: asyncio would load OpenSSL, 4 MiB, if it found the module."""
    sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]  # None: as if it were not installed
    import asyncio  # noqa: PLC0415 - only now

    return asyncio.run(work)


async def _serve(options: argparse.Namespace) -> int:
    gc.disable()  # nothing of what is imported is garbage: looking for some takes 7 % of the time
    from gpuwhyd.bus.address import socket_names  # noqa: PLC0415 - as below
    from gpuwhyd.daemon import run  # noqa: PLC0415 - the other commands start without it

    gc.freeze()
    gc.enable()
    sys.setswitchinterval(SWITCH_SECONDS)
    # What is no address does not become one by waiting; a session bus may yet come.
    if options.bus != "session":
        socket_names(options.bus)
    await run(_daemon_options(options))
    return 0


async def _record(options: argparse.Namespace) -> int:
    from gpuwhyd.record import record  # noqa: PLC0415 - as above

    await record(_daemon_options(options), options.file, anonymous=options.anonymous)
    return 0


def _daemon_options(options: argparse.Namespace) -> "Options":
    from gpuwhyd.daemon import Options  # noqa: PLC0415 - as above

    return Options(
        config=options.config,
        bus=options.bus,
        simulate=options.simulate,
        procfs=options.procfs,
        sysfs=options.sysfs,
        state_dir=options.state_dir,
        journal={"auto": None, "on": True, "off": False}[options.journal],
    )


def _check_config(path: Path | None) -> int:
    from gpuwhyd.backends.catalog import BACKEND_NAMES  # noqa: PLC0415 - as above
    from gpuwhyd.config import DEFAULT_PATH, load  # noqa: PLC0415 - as above

    load(path, backends=BACKEND_NAMES)
    source = path or DEFAULT_PATH
    with writing():
        print(f"{source}: good" if source.exists() else f"{source} does not exist: the defaults hold")
    return 0


async def _reload(address: str) -> int:
    """Returns when the daemon has taken its configuration, and tells what it notes of it; or says why it has not."""
    from gpuwhyd.client.ask import Daemon  # noqa: PLC0415 - as above

    async with await Daemon.reach(address) as daemon:
        await daemon.reload()
        notes = (await daemon.health()).get("notes")
    with writing():
        for note in notes if isinstance(notes, list) else ():
            print(note)
    return 0


def _replay(file: Path, config: Path | None, *, as_json: bool) -> int:
    """With the rules and thresholds of the configuration, as the daemon would run."""
    from gpuwhyd import replay  # noqa: PLC0415 - as above
    from gpuwhyd.config import load  # noqa: PLC0415 - as above

    gc.freeze()  # what was imported stays: looking through it again and again takes 5 % of the time
    told = replay.as_json if as_json else replay.as_text
    with writing():
        for seconds, event in replay.replay(file, load(config).engine):
            print(told(seconds, event))
    return 0


def _installation(options: argparse.Namespace) -> int:
    from gpuwhyd.install import check, install, uninstall  # noqa: PLC0415 - as above

    if options.command == "check":
        findings = check(options.root)
        with writing():
            for line in findings.good:
                print(f"good   {line}")
            for line in findings.faults:
                print(f"fault  {line}")
        return 1 if findings.faults else 0
    lines = (
        install(options.root)
        if options.command == "install"
        else uninstall(options.root, purge=options.purge)
    )
    with writing():
        for line in lines:
            print(line)
    return 0


def _say(error: GpuwhydError, status: int) -> int:
    prefix = "<3>" if _logs_to_journal() else ""
    print(f"{prefix}gpuwhyd: {error}", file=sys.stderr)
    return status


def _set_up_log(level: str) -> None:
    """To stderr; with the priorities that the journal reads when that is where stderr goes (sd-daemon(3))."""
    handler: logging.Handler
    if _logs_to_journal():
        handler = JournalLog()
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(LineLimit())
    logging.basicConfig(level=level.upper(), handlers=[handler])


def _logs_to_journal() -> bool:
    return is_the_journal(STDERR, os.environ.get("JOURNAL_STREAM"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpuwhyd",
        description="Finds out why your GPU fan is running, and tells it on D-Bus and in the journal. Ask it with `gpuwhy`.",
        epilog="Without a command it runs the daemon. See gpuwhyd(8), gpuwhyd.toml(5).",
    )
    parser.add_argument("--version", action="version", version=f"gpuwhyd {__version__}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="instead of /etc/gpuwhyd/gpuwhyd.toml")
    parser.add_argument("--check-config", action="store_true", help="check the configuration and end")
    parser.add_argument(
        "--bus", default="system", metavar="BUS", help="system (default), session, or a D-Bus address"
    )
    parser.add_argument(
        "--simulate", metavar="SCENARIO", help="simulated GPUs instead of real ones: a TOML file, or `demo`"
    )
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="where to keep what was learned")
    parser.add_argument(
        "--journal",
        default="auto",
        choices=("auto", "on", "off"),
        help="whether events go to the journal; auto: unless they are simulated",
    )
    parser.add_argument("--path.procfs", dest="procfs", type=Path, default=Path("/proc"), metavar="DIR")
    parser.add_argument("--path.sysfs", dest="sysfs", type=Path, default=Path("/sys"), metavar="DIR")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("reload", help="make the running daemon take its configuration again")
    command = commands.add_parser(
        "record", help="write what is seen to a file, for replay; see docs/recording.md"
    )
    command.add_argument("file", type=Path, metavar="FILE", help="not there yet; - is standard output")
    command.add_argument(
        "--anonymous", action="store_true", help="without names of users, programs and units"
    )
    command = commands.add_parser("replay", help="what the engine says to a recording; see docs/recording.md")
    command.add_argument("file", type=Path, metavar="FILE", help="- is standard input")
    command.add_argument("--json", action="store_true", help="one JSON object an event")
    for name, text in (
        ("install", "put the daemon where systemd and D-Bus find it (needs root)"),
        ("uninstall", "take it away again; what you configured stays"),
        ("check", "see whether everything is in place"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument(
            "--root", type=Path, default=Path("/"), metavar="DIR", help="another tree than /"
        )
        if name == "uninstall":
            command.add_argument("--purge", action="store_true", help="configuration and state too")
    return parser
