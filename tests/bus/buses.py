"""Private message buses for tests: a real dbus-daemon (session or stock system policy) and a real dbus-broker.

Each is a context manager that gives the address to connect to, and ends its process when left. They need Debian's
packages dbus and dbus-broker; only `private_bus("system")` for clients of other users needs root.
"""

import array
import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpuwhyd.bus import library
from gpuwhyd.bus.header import MessageKind
from tests.bus import broker_policy

STOCK_SYSTEM_CONFIG = Path("/usr/share/dbus-1/system.conf")
_STARTED_WITHIN_SECONDS = 10.0

# As in the stock session.conf; without these a client may have 128 calls unanswered, as on the system bus.
_SESSION_LIMITS = "".join(
    f'<limit name="{name}">{value}</limit>'
    for name, value in {
        "max_incoming_bytes": 1_000_000_000,
        "max_outgoing_bytes": 1_000_000_000,
        "max_message_size": 1_000_000_000,
        "max_completed_connections": 100_000,
        "max_connections_per_user": 100_000,
        "max_match_rules_per_connection": 50_000,
        "max_replies_per_connection": 50_000,
    }.items()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateBus:
    address: str
    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """As a crash: SIGKILL, and gone when this returns."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def private_bus(
    policy: str = "session", *, policy_files: Sequence[Path] = (), socket_path: Path | None = None
) -> Iterator[PrivateBus]:
    """A dbus-daemon of its own. `policy` "session" lets everyone of this user do everything; "system" is the stock
    policy and limits of the system bus, open to clients of all users, plus `policy_files` (such as org.gpuwhyd1.conf).
    `socket_path` fixes the address, so that a bus can be started again where another one was.
    """
    with _directory() as directory:
        path = socket_path or directory / "bus"
        config = directory / "bus.conf"
        if policy == "system":
            config.write_text(_system_config(path, directory, policy_files))
        elif policy == "session":
            config.write_text(_session_config(path, policy_files))
        else:
            raise ValueError(f"policy {policy!r}: write session or system")
        command = [_tool("dbus-daemon"), f"--config-file={config}", "--nofork", "--nopidfile", "--nosyslog"]
        with _running(command, directory / "log", ready=lambda: _accepts(path)) as process:
            path.chmod(0o666)
            yield PrivateBus(address=f"unix:path={path}", process=process, log=directory / "log")
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def private_broker(
    policy: str = "session", *, policy_files: Sequence[Path] = (), socket_path: Path | None = None
) -> Iterator[PrivateBus]:
    """A dbus-broker of its own, with this process as its controller. `policy` as for private_bus, with the limits that
    dbus-broker-launch gives a system bus.
    """
    if policy == "system":
        batches = broker_policy.batches([STOCK_SYSTEM_CONFIG, *policy_files])
    elif policy == "session":
        batches = broker_policy.open_to_all()
    else:
        raise ValueError(f"policy {policy!r}: write session or system")
    with _directory() as directory:
        path = socket_path or directory / "bus"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        controller, theirs = socket.socketpair()
        with listener, controller, theirs:
            listener.bind(str(path))
            path.chmod(0o666)
            listener.listen(128)
            theirs.setblocking(False)
            command = [
                _tool("dbus-broker"), "--controller", str(theirs.fileno()), "--machine-id", "0" * 31 + "1",
                "--max-bytes", "536870912", "--max-fds", "4096", "--max-matches", "131072",
            ]  # fmt: skip
            with _running(
                command, directory / "log", ready=lambda: True, pass_fds=[theirs.fileno()]
            ) as process:
                theirs.close()
                _hand_over(controller, listener, batches)
                yield PrivateBus(address=f"unix:path={path}", process=process, log=directory / "log")
        path.unlink(missing_ok=True)


def _hand_over(controller: socket.socket, listener: socket.socket, batches: list[object]) -> None:
    """Tells dbus-broker to serve `listener`: org.bus1.DBus.Broker.AddListener, as dbus-broker-launch does it."""
    rules = "bta(btbs)a(btssssuutt)a(btssssuutt)"
    policy = library.Variant(f"(a(u({rules}))a(buu({rules}))a(ss)bs)", [batches, [], [], False, "session"])
    message = library.marshal(
        MessageKind.METHOD_CALL,
        1,
        path="/org/bus1/DBus/Broker",
        interface="org.bus1.DBus.Broker",
        member="AddListener",
        signature="ouv",
        body=["/org/bus1/DBus/Listener/0", 0, policy],
    )
    message = _with_descriptor(message)
    controller.settimeout(_STARTED_WITHIN_SECONDS)
    controller.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n")
    controller.sendmsg(
        [message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener.fileno()]))]
    )
    answer = b""
    while not (match := re.search(rb"AGREE_UNIX_FD\r\nl(.)", answer, re.DOTALL)):
        chunk = controller.recv(4096)
        if not chunk:
            raise RuntimeError(f"dbus-broker hung up: {answer!r}")
        answer += chunk
    if match[1] != b"\x02":
        raise RuntimeError(f"dbus-broker does not take the listener: {answer!r}")


def _with_descriptor(message: bytes) -> bytes:
    """The same message with signature `ohv` in place of `ouv`, which is marshalled alike, and the header field that says
    one descriptor comes with it. Our own marshalling knows no descriptors, on purpose.
    """
    fields_bytes = int.from_bytes(message[12:16], "little")
    header_bytes = 16 + fields_bytes + (-fields_bytes & 7)
    fields = message[16 : 16 + fields_bytes].replace(b"\x03ouv\0", b"\x03ohv\0")
    fields += bytes(-len(fields) & 7) + b"\x09\x01u\0" + (1).to_bytes(4, "little")
    header = message[:12] + len(fields).to_bytes(4, "little") + fields + bytes(-len(fields) & 7)
    return header + message[header_bytes:]


def _system_config(path: Path, directory: Path, policy_files: Sequence[Path]) -> str:
    """The stock configuration without what belongs to the machine: user, pid file, activation, others' policies."""
    config = STOCK_SYSTEM_CONFIG.read_text()
    for element in ("user", "pidfile", "servicehelper", "listen", "includedir"):
        config = re.sub(rf"<{element}>.*?</{element}>", "", config, flags=re.DOTALL)
    config = re.sub(r"<(fork|syslog|standard_system_servicedirs)/>", "", config)
    config = re.sub(r"<include [^>]*>.*?</include>", "", config, flags=re.DOTALL)
    assert "<deny own=" in config, f"{STOCK_SYSTEM_CONFIG} is not what this expects"
    return config.replace(
        "</busconfig>", f"<listen>unix:path={path}</listen>{_includes(policy_files)}</busconfig>"
    )


def _session_config(path: Path, policy_files: Sequence[Path]) -> str:
    return f"""<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
    <allow user="*"/>
  </policy>
  {_SESSION_LIMITS}
  {_includes(policy_files)}
</busconfig>
"""


def _includes(policy_files: Sequence[Path]) -> str:
    return "".join(f"<include>{file.resolve()}</include>" for file in policy_files)


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is missing; apt-get install dbus dbus-broker")
    return found


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == 0


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    """Short, because a socket name holds 107 bytes; passable for other users."""
    with tempfile.TemporaryDirectory(prefix="bus-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


@contextlib.contextmanager
def _running(command, log: Path, *, ready, pass_fds: Sequence[int] = ()) -> Iterator[subprocess.Popen[bytes]]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DBUS_")}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, pass_fds=pass_fds, env=environment)
    try:
        deadline = time.monotonic() + _STARTED_WITHIN_SECONDS
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not start: {log.read_text()}")
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()
