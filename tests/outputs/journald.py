"""A real systemd-journald in a mount namespace of its own, with everything that it writes on a tmpfs; needs root.

Sockets and files are reached from outside through /proc/PID/root of a process that holds the namespace. As systemd does,
the namespace can hold journald's socket over a restart (`socket_activated`), so that what is queued there survives.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_SET_UP = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal /run/log/journal /run/lock /run/udev /run/jconf /etc/systemd
printf '[Journal]\\nStorage=volatile\\nReadKMsg=no\\nAudit=no\\nForwardToSyslog=no\\n' > /run/jconf/journald.conf
[ -e /etc/systemd/journald.conf ] || : > /etc/systemd/journald.conf
mount --bind /run/jconf/journald.conf /etc/systemd/journald.conf
echo ready
exec sleep infinity
"""


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """The one wait: polls what another process must bring about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {seconds} s"
        time.sleep(0.01)


class Journald:
    def __init__(self) -> None:
        unshare = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _SET_UP]
        self._holder = subprocess.Popen(unshare, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        self.holder_pid = self._holder.pid
        """A process that holds the namespace, for nsenter(1)."""
        self.root = Path(f"/proc/{self.holder_pid}/root")
        self.socket_path = self.root / "run/systemd/journal/socket"
        self.directory = self.root / "run/log/journal"
        self._server: subprocess.Popen[bytes] | None = None
        self._held: socket.socket | None = None

    def hold_socket(self) -> None:
        """As systemd-journald.socket does: journald is given the socket, and it stays when journald ends.

        journald compares the socket's own name, so it must be bound by that name inside the namespace.
        """
        self._held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        number = self._held.fileno()
        bind = f"import socket; socket.socket(fileno={number}).bind('/run/systemd/journal/socket')"
        enter = ["nsenter", "-t", str(self._holder.pid), "--mount", sys.executable, "-c", bind]
        subprocess.run(enter, pass_fds=[number], check=True)

    def start(self) -> None:
        """Returns when it reads. The shell gives it its own pid in LISTEN_PID, as sd_listen_fds(3)
        asks (bash, because dash knows descriptors of one digit only)."""
        command = ["nsenter", "-t", str(self._holder.pid), "--mount", "bash", "-c"]
        if self._held is None:
            self._server = subprocess.Popen(
                [*command, "exec /lib/systemd/systemd-journald"], stderr=subprocess.DEVNULL
            )
        else:
            script = f"exec 3<&{self._held.fileno()}; LISTEN_FDS=1 LISTEN_PID=$$ exec /lib/systemd/systemd-journald"
            self._server = subprocess.Popen(
                [*command, script], stderr=subprocess.DEVNULL, pass_fds=[self._held.fileno()]
            )
        until(self._reads)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """By default so that it cannot tidy up."""
        assert self._server is not None
        self._server.send_signal(number)
        self._server.wait()
        self._server = None

    def stall(self) -> None:
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._server is not None
        self._server.send_signal(signal.SIGCONT)

    def rotate(self) -> None:
        """systemd-journald(8): SIGUSR2 starts new files."""
        assert self._server is not None
        self._server.send_signal(signal.SIGUSR2)

    def run(self, *command: str, uid: int = 0, stdin: str = "") -> str:
        """A command inside the namespace: journalctl and logger find this journald there."""
        enter = ["nsenter", "-t", str(self._holder.pid), "--mount"]
        as_user = ["setpriv", f"--reuid={uid}", "--clear-groups"] if uid else []
        done = subprocess.run(
            [*enter, *as_user, *command], input=stdin, capture_output=True, text=True, check=True, timeout=20
        )
        return done.stdout

    def close(self) -> None:
        if self._server is not None:
            self.go_on()
            self.kill()
        if self._held is not None:
            self._held.close()
        self._holder.kill()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()

    def _reads(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client, contextlib.suppress(OSError):
            client.connect(str(self.socket_path))
            return any(self.directory.glob("*/system.journal"))
        return False


@contextlib.contextmanager
def running_journald(*, socket_held: bool = False) -> Iterator[Journald]:
    assert os.getuid() == 0, "a mount namespace needs root"
    assert shutil.which("unshare") is not None
    journald = Journald()
    try:
        if socket_held:
            journald.hold_socket()
        journald.start()
        yield journald
    finally:
        journald.close()
