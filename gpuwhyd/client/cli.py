"""The command line of `gpuwhy`: what is asked, in which form the answer goes out, and the exit code."""

import argparse
import asyncio
import dataclasses
import os
import re
import shutil
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import NoReturn, cast

from gpuwhyd import __version__
from gpuwhyd.client import doctor, history, past_spike, screen, status, top, why
from gpuwhyd.client.answer import Answer, Options
from gpuwhyd.client.ask import AskError, BusLostError, Daemon
from gpuwhyd.client.since import EXAMPLES, since_usec
from gpuwhyd.client.terminal import printable, terminal_of
from gpuwhyd.errors import GpuwhydError
from gpuwhyd.standard_output import take_every_name, writing

DONE, FAN_IS_UP, ERROR, NOT_RUNNING, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes; the one for not running is `NotRunningError.exit_code`, 130 is the shell's for SIGINT."""


async def _report(daemon: Daemon, options: Options) -> Answer:
    from gpuwhyd.client import report  # noqa: PLC0415 - the others have no use for it

    return await report.answer(daemon, options)


_COMMANDS: dict[str, Callable[[Daemon, Options], Awaitable[Answer]]] = {
    "why": why.answer,
    "spike": past_spike.answer,
    "status": status.answer,
    "top": top.answer,
    "history": history.answer,
    "doctor": doctor.answer,
    "report": _report,
}
_WORDS = ("status", "top", "watch", "history", "doctor", "report")
_SPIKE_ID = re.compile(r"(?:.+-)?\d{10,20}")
"""GPU id and wall-clock microseconds; a narrow `gpuwhy history` shows these alone."""
_BELONGS_TO = {
    "since": ("history",),
    "limit": ("history",),
    "all_events": ("history",),
    "once": ("top",),
    "format": ("watch",),
    "exit_code": ("why", "status", "top"),
    "gpu": ("why", "status", "top", "watch", "history", "doctor", "report"),
}
_TOP_SECONDS = 2.0
_MOST_ROWS = 1000

_DESCRIPTION = """\
Why is my GPU fan running? Asks the daemon gpuwhyd and shows its answer.

  gpuwhy              the answer now, for each GPU
  gpuwhy SPIKE_ID     the answer for a past spike; its id is in `gpuwhy history`
  gpuwhy status       one line per GPU
  gpuwhy top          who heats each GPU, the hottest first
  gpuwhy watch        a line for each thing that happens, as it happens
  gpuwhy history      past spikes and alerts, newest last
  gpuwhy doctor       whether gpuwhyd can do its work here, where it reads what, and what to do where it cannot
  gpuwhy report       the same for a bug report, without names of anybody
"""
_EPILOG = """\
Exit code: 0 done, 2 error, 3 gpuwhyd is not running; with --exit-code also 1 when a fan is up.
More: man gpuwhy
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise AskError(f"{message[:1].upper()}{message[1:]}. See: gpuwhy --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code. An error is one line on standard error; a closed pipe and Ctrl-C are
    silent.
    """
    take_every_name()
    try:
        with writing():
            return _run(arguments)
    except GpuwhydError as error:
        print(f"gpuwhy: {printable(str(error))}", file=sys.stderr)
        return error.exit_code if isinstance(error, AskError) else ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE  # the reader has gone away


def _run(arguments: Sequence[str] | None) -> int:
    options = parse(arguments)
    if options.command == "watch":
        return _watch(options)
    if options.command == "top" and not options.once:
        return asyncio.run(_live_top(options))
    answer = asyncio.run(_answer(options))
    if options.as_json:
        from gpuwhyd.client import json_form  # noqa: PLC0415 - only --json needs the model's field names

        print(json_form.several_lines(answer.document))
    else:
        print("\n".join(answer.lines))
    if options.exit_code and answer.fan_up:
        return FAN_IS_UP
    return DONE if answer.healthy else ERROR


async def _answer(options: Options) -> Answer:
    try:
        reached = await Daemon.reach(options.bus)
    except BusLostError as error:
        if options.command != "report":
            raise
        from gpuwhyd.client import report  # noqa: PLC0415 - the others have no use for it

        return report.answer_of(report.Answers(trouble=str(error)), options)
    async with reached as daemon:
        return await _COMMANDS[options.command](daemon, options)


async def _live_top(options: Options) -> int:
    async with await Daemon.reach(options.bus) as daemon:

        async def draw() -> tuple[tuple[str, ...], int]:
            size = shutil.get_terminal_size()
            terminal = dataclasses.replace(options.terminal, columns=size.columns)
            return (
                await top.answer(daemon, dataclasses.replace(options, terminal=terminal))
            ).lines, size.lines

        await draw()  # an error is told before the screen is taken
        try:
            await screen.refresh(draw, every_seconds=_TOP_SECONDS)
        except asyncio.CancelledError:
            return DONE  # Ctrl-C is how top is ended
    return DONE


def _watch(options: Options) -> int:
    from gpuwhyd.client.watch import watch  # noqa: PLC0415 - the others do not need it at start
    from gpuwhyd.client.watch_waybar import watch_waybar  # noqa: PLC0415 - as above

    try:
        asyncio.run(watch_waybar(options) if options.waybar else watch(options))
    except KeyboardInterrupt:
        return DONE  # Ctrl-C is how watching is ended
    return DONE


def parse(arguments: Sequence[str] | None = None) -> Options:
    """The command line, checked. Raises AskError saying what would be right; --help and --version end the program."""
    given = _parser().parse_intermixed_args(
        _with_spans_back(sys.argv[1:] if arguments is None else arguments)
    )
    command, spike_id = _command(given.what)
    for name, commands in _BELONGS_TO.items():
        if getattr(given, name) not in {None, False} and command not in commands:
            *first, last = (("gpuwhy " + one).removesuffix(" why") for one in commands)
            owner = f"{', '.join(first)} and {last}" if first else last
            raise AskError(
                f"--{name.removesuffix('_events').replace('_', '-')} belongs to {owner}. See: gpuwhy --help"
            )
    if given.json and given.format == "waybar":
        raise AskError("--json and --format waybar are two forms; give one of them")
    now = datetime.now(UTC)
    terminal = terminal_of(sys.stdout, given.color)
    as_json = given.json or given.format == "json"
    return Options(
        command=command,
        bus=given.bus or os.environ.get("GPUWHYD_BUS") or "system",
        spike_id=spike_id,
        gpu=given.gpu,
        as_json=as_json,
        exit_code=given.exit_code,
        once=given.once or as_json or terminal.columns is None,
        waybar=given.format == "waybar",
        since_usec=_since(given.since, now),
        limit=_limit(given.limit),
        all_events=given.all_events,
        terminal=terminal,
        now=now,
    )


def _with_spans_back(arguments: Sequence[str]) -> list[str]:
    """`--since -2h`, as journalctl takes it, in one word: argparse takes `-2h` for an option."""
    words: list[str] = []
    for word in arguments:
        if words and words[-1] == "--since" and re.match("-[0-9]", word):
            words[-1] = f"--since={word}"
        else:
            words.append(word)
    return words


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gpuwhy",
        usage="gpuwhy [COMMAND | SPIKE_ID] [options]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("what", nargs="?", metavar="COMMAND | SPIKE_ID", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="the answer as JSON; null is what is not known")
    parser.add_argument(
        "--gpu", metavar="ID", help="only this GPU: its id, PCI address, or number in `gpuwhy status`"
    )
    parser.add_argument(
        "--exit-code", action="store_true", help="exit with 1 when a fan is up (gpuwhy, status, top)"
    )
    parser.add_argument(
        "--bus",
        metavar="BUS",
        help="system, session or a D-Bus address; default: $GPUWHYD_BUS, else system",
    )
    parser.add_argument("--color", choices=("auto", "always", "never"), default="auto", help="default: auto")
    parser.add_argument("--version", action="version", version=f"gpuwhy {__version__}")
    parser.add_argument("--once", action="store_true", help="top: one look, as when it is not a terminal")
    parser.add_argument(
        "--format", choices=("text", "json", "waybar"), help="watch: waybar is for its custom module"
    )
    parser.add_argument("--since", metavar="TIME", help=f"history: {EXAMPLES}")
    parser.add_argument(
        "--all",
        dest="all_events",
        action="store_true",
        help="history: also GPUs and drivers that came and went, beside spikes and alerts",
    )
    parser.add_argument("--limit", metavar="N", help="history: at most so many, the newest; default: 20")
    return parser


def _command(what: str | None) -> tuple[str, str | None]:
    if what is None:
        return "why", None
    if what in _WORDS:
        return what, None
    if _SPIKE_ID.fullmatch(what):
        return "spike", what
    hint = (
        f". For one GPU: gpuwhy --gpu {what}"
        if re.match(r"pci_|chassis_|[0-9a-f]*:?[0-9a-f]{2}:", what)
        else ""
    )
    raise AskError(f"{what!r} is no command and no spike id{hint}. Commands: {', '.join(_WORDS)}")


def _since(text: str | None, now: datetime) -> int:
    if text is None:
        return 0
    try:
        return since_usec(text, now)
    except ValueError as error:
        raise AskError(f"--since: {error}") from error


def _limit(text: str | None) -> int:
    if text is None:
        return cast("int", Options.__dataclass_fields__["limit"].default)
    if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= _MOST_ROWS:
        raise AskError(f"--limit: {text!r} is no number from 1 to {_MOST_ROWS}")
    return int(text)
