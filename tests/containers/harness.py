"""A real Debian, booted: systemd as PID 1, system D-Bus, journald, polkit, Python; about a second to boot.

    with booted("trixie", work) as debian:
        debian.run("systemctl", "start", "x")

Its root is thrown away at the end. The installed files of the host's checkout are at /src, the wheels at /wheels.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.containers import roots
from tests.containers.nspawn import children, first_process, nspawn

_T = TypeVar("_T")
_ENVIRONMENT = (
    "env",
    "-i",
    "-C",
    "/",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
)
_BOOT_SECONDS = 60.0
_OFF_SECONDS = 20.0
_SOURCE = ("gpuwhyd", "systemd", "dbus", "config", "man", "pyproject.toml", "README.md", "LICENSE")
NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Result:
    status: int
    output: str
    errors: str

    @property
    def text(self) -> str:
        return self.output + self.errors


class Debian:
    def __init__(self, suite: str, leader: int) -> None:
        self.suite = suite
        self.leader = leader
        """PID 1 of the container, as the host numbers it."""

    def enter(self, *words: str, user: int | None = None) -> tuple[str, ...]:
        """The host's command line that runs `words` inside."""
        who = () if user is None else ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups")
        return (
            "nsenter",
            f"--target={self.leader}",
            *("-m", "-u", "-i", "-n", "-p", "-C"),
            *_ENVIRONMENT,
            *who,
            *words,
        )

    def run(self, *words: str, user: int | None = None, check: bool = True, timeout: float = 60) -> Result:
        """Runs a command to its end. With `check`, a failure is an AssertionError that shows what it printed."""
        done = subprocess.run(
            self.enter(*words, user=user),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
        result = Result(done.returncode, done.stdout, done.stderr)
        assert not check or result.status == 0, f"{' '.join(words)}: status {result.status}\n{result.text}"
        return result

    def shell(self, script: str, *, user: int | None = None, check: bool = True) -> Result:
        return self.run("sh", "-c", script, user=user, check=check)

    def path(self, inside: str) -> Path:
        """A file of the container, for the host to read and write. Links in it must be relative."""
        return Path(f"/proc/{self.leader}/root") / inside.removeprefix("/")

    def write(self, inside: str, content: str) -> None:
        place = self.path(inside)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)

    @contextmanager
    def background(self, *words: str, user: int | None = None) -> Iterator[Callable[[], str]]:
        """Runs a command meanwhile; gives a function that reads what it has printed so far."""
        place = self.path("/tmp") / f"output-{time.monotonic_ns()}"
        with (
            place.open("wb") as output,
            subprocess.Popen(
                self.enter(*words, user=user),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            ) as process,
        ):
            try:
                yield place.read_text
            finally:
                for child in children(process.pid):
                    os.kill(child, signal.SIGKILL)
                process.kill()

    def make_environment(self) -> None:
        """A virtual environment, /root/venv, with gpuwhyd in it, as a person makes one."""
        self.run("python3", "-m", "venv", "/root/venv")
        pip = ("/root/venv/bin/pip", "install", "--quiet", "--no-index", "--find-links=/wheels", "/src")
        self.run(*pip, timeout=180)

    def journal(self, *arguments: str) -> str:
        self.run("journalctl", "--sync")
        return self.run("journalctl", "--no-pager", "--quiet", *arguments, check=False).output


def wait_for(condition: Callable[[], _T], seconds: float, what: str) -> _T:
    """What `condition` gives as soon as it is true; AssertionError when it does not become so in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)
    return value


@contextmanager
def booted(suite: str, work: Path) -> Iterator[Debian]:
    """`work` takes the copy of the source and the console's log, which is printed when the boot or the test fails."""
    source = work / "src"
    _copy_source(source)
    console = work / "console"
    command = nspawn(
        roots.root(suite),
        *("--console=pipe", f"--machine=gpuwhyd-{os.getpid()}", "--boot"),
        *(f"--bind-ro={source}:/src", f"--bind-ro={roots.wheelhouse(suite)}:/wheels"),
    )
    with (
        console.open("wb") as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield _wait_until_up(suite, process)
        except BaseException:
            print(console.read_text(errors="replace")[-4000:])
            raise
        finally:
            process.terminate()  # nspawn asks the system inside to power off
            try:
                process.wait(_OFF_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_up(suite: str, process: subprocess.Popen[bytes]) -> Debian:
    def leader() -> int | None:
        assert process.poll() is None, "systemd-nspawn ended at once"
        return first_process(process.pid)

    debian = Debian(suite, wait_for(leader, _BOOT_SECONDS, "a first process in the container"))

    def up() -> bool:
        assert process.poll() is None, "the container ended while it booted"
        state = debian.run("systemctl", "is-system-running", check=False).output.strip()
        return state in {"running", "degraded"}

    wait_for(up, _BOOT_SECONDS, "systemd inside is up")
    return debian


def _copy_source(target: Path) -> None:
    for name in _SOURCE:
        path = roots.REPOSITORY / name
        if path.is_dir():
            shutil.copytree(path, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / name)
