"""Runs gpuwhyd on a bus of its own and shows what it says; all that is told comes from it over D-Bus.

Simulated: the story has five parts, and each must be seen. On real GPUs: the answer now, and each change for a minute.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMANDS = Path(sys.executable).parent
STORY_SECONDS = 60.0
START_SECONDS = 20.0
STATUS_EVERY_SECONDS = 2.0


class DemoError(Exception):
    """One line for the person who looks at the demo."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="script/demo", description="See gpuwhyd at work, for a minute.")
    parser.add_argument(
        "--simulate", action="store_true", help="a simulated card even if this machine has a GPU"
    )
    simulate = parser.parse_args().simulate
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="gpuwhyd-demo-") as name, ExitStack() as stack:
        folder = Path(name)
        try:
            os.environ["GPUWHYD_BUS"] = stack.enter_context(private_bus(folder))
            if not simulate and has_gpu_devices():
                with daemon(folder):
                    if status()["gpus"]:
                        return watch_own_gpus()
                    print("gpuwhyd cannot read this machine's GPUs, so here is a simulated one.\n")
            with daemon(folder, "--simulate", "demo"):
                return watch_story()
        except DemoError as error:
            print(f"demo: {error}", file=sys.stderr)
            show_log(folder)
            return 1
        except KeyboardInterrupt:
            return 130


def has_gpu_devices() -> bool:
    return Path("/dev/nvidiactl").exists() or any(Path("/sys/class/drm").glob("card[0-9]"))


@contextmanager
def private_bus(folder: Path) -> Iterator[str]:
    """The address of a bus of our own; the machine's own buses are not touched."""
    address = f"unix:path={folder}/bus"
    with running(
        "dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address={address}", log=folder / "bus.log"
    ):
        wait_until((folder / "bus").exists, "dbus-daemon does not start")
        yield address


@contextmanager
def daemon(folder: Path, *options: str) -> Iterator[None]:
    """gpuwhyd, once it has read its GPUs."""
    (folder / "state").mkdir(exist_ok=True)
    environment = os.environ | {"STATE_DIRECTORY": str(folder / "state")}
    command = (str(COMMANDS / "gpuwhyd"), "--bus", os.environ["GPUWHYD_BUS"], *options)
    with running(*command, log=folder / "daemon.log", environment=environment) as process:

        def answers() -> bool:
            if process.poll() is not None:
                raise DemoError(f"gpuwhyd ended with exit code {process.returncode}")
            return ask("status") is not None

        wait_until(answers, "gpuwhyd does not answer")
        yield


@contextmanager
def running(
    *command: str, log: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with (
        log.open("ab") as file,
        subprocess.Popen(command, stdout=file, stderr=file, env=environment) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_until(condition: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise DemoError(f"{complaint} within {START_SECONDS:g} s")
        time.sleep(0.1)


def ask(*question: str) -> dict[str, Any] | None:
    """What `gpuwhy QUESTION --json` answers; `None` while the daemon does not."""
    asked = subprocess.run(
        (COMMANDS / "gpuwhy", *question, "--json"),
        capture_output=True,
        text=True,
        check=False,
        timeout=START_SECONDS,
    )
    return json.loads(asked.stdout) if asked.returncode == 0 else None


def status() -> dict[str, Any]:
    answer = ask("status")
    if answer is None:
        raise DemoError("gpuwhyd stopped answering")
    return answer


def watch_story() -> int:
    """The simulated card, until its five parts were seen."""
    print(f"A simulated card: {status()['gpus'][0]['name']}. Its time runs faster than yours.\n")
    began = time.monotonic()
    for part in PARTS:
        seen = wait_for(part, began)
        if seen is None:
            raise DemoError(f"after {STORY_SECONDS:g} s this was not seen: {part.title}")
        say(part.title)
        print(f"  {part.tells(seen)}\n", flush=True)
    print("What gpuwhyd remembers of it (gpuwhy history):\n", flush=True)
    subprocess.run((COMMANDS / "gpuwhy", "history"), check=True)
    print("\nThat was gpuwhyd. README.md says how to install it.")
    return 0


@dataclass(frozen=True)
class Moment:
    """What gpuwhyd says at one moment: of the card in numbers, and why."""

    gpu: dict[str, Any]
    why: dict[str, Any]

    @property
    def suspect(self) -> dict[str, Any] | None:
        return next(iter(self.why["suspects"] or ()), None)


@dataclass(frozen=True)
class Part:
    title: str
    is_seen: Callable[[Moment], bool]
    tells: Callable[[Moment], str]


PARTS = (
    Part("The fan spins up.", lambda now: now.gpu["spike_active"], lambda now: readings(now.gpu)),
    Part(
        "Why?",
        lambda now: now.why["cause"] in {"workload", "workload-mixed"} and now.suspect is not None,
        lambda now: now.why["sentence"],
    ),
    Part(
        "The program exits.",
        lambda now: now.suspect is not None and not now.suspect["alive"],
        lambda now: (
            f"{now.suspect['program']['name']} runs no more; {readings(now.gpu)}" if now.suspect else ""
        ),
    ),
    Part(
        "Why is it still loud?",
        lambda now: now.why["cause"] == "residual-heat" and now.gpu["spike_active"],
        lambda now: now.why["sentence"],
    ),
    Part(
        "It is quiet again.",
        lambda now: now.why["cause"] == "quiet" and bool(told("spike-ended")),
        lambda now: f"{told('spike-ended')}\n  {now.why['sentence']}",
    ),
)


def told(event: str) -> str:
    """What the last event of this kind said; empty when there was none."""
    events = (ask("history") or {"events": []})["events"]
    return next((str(past["message"]) for past in reversed(events) if past["event"] == event), "")


def wait_for(part: Part, began: float) -> Moment | None:
    """The first moment that shows this part, with a line of readings now and then; `None` when it never comes."""
    shown = time.monotonic()
    while time.monotonic() < began + STORY_SECONDS:
        now = Moment(gpu=status()["gpus"][0], why=answer_now())
        if part.is_seen(now):
            return now
        if time.monotonic() >= shown + STATUS_EVERY_SECONDS:
            shown += STATUS_EVERY_SECONDS
            print(f"  {readings(now.gpu)}", flush=True)
        time.sleep(0.2)
    return None


def watch_own_gpus() -> int:
    """The answer for each GPU now, and again when its cause changes."""
    print(
        f"Your own GPUs, for {STORY_SECONDS:g} s. Start something heavy on one to see it named.\n", flush=True
    )
    shown: dict[str, str] = {}
    deadline = time.monotonic() + STORY_SECONDS
    while time.monotonic() < deadline:
        answer = ask() or {"explanations": []}
        for why in answer["explanations"]:
            if shown.get(why["gpu_id"]) != why["cause"]:
                shown[why["gpu_id"]] = why["cause"]
                say(why["cause"])
                print(f"  {why['sentence']}\n", flush=True)
        time.sleep(0.5)
    if not shown:
        raise DemoError("gpuwhyd told nothing about your GPUs")
    print(
        "script/demo --simulate shows a whole story on a simulated card. README.md says how to install gpuwhyd."
    )
    return 0


def answer_now() -> dict[str, Any]:
    answer = ask()
    if answer is None or not answer["explanations"]:
        raise DemoError("gpuwhyd stopped answering")
    first: dict[str, Any] = answer["explanations"][0]
    return first


def readings(gpu: dict[str, Any]) -> str:
    return (
        f"fan {gpu['fan_percent']:.0f} %, {gpu['fan_rpm']:.0f} RPM, {gpu['temperature_celsius']:.0f} degC, "
        f"{gpu['power_watts']:.0f} W"
    )


def say(title: str) -> None:
    bold, plain = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() and "NO_COLOR" not in os.environ else ("", "")
    print(f"{bold}{title}{plain}")


def show_log(folder: Path) -> None:
    log = folder / "daemon.log"
    if log.exists():
        print("The daemon said:", file=sys.stderr)
        print("\n".join(log.read_text(errors="replace").splitlines()[-20:]), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
