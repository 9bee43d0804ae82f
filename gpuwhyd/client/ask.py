"""Questions to the daemon over D-Bus. Answers are plain dicts under the model's field names; faults are one clear line."""

from collections.abc import Awaitable, Callable
from typing import Self, TypeVar, cast

from gpuwhyd.bus.codec import ObjectPath
from gpuwhyd.bus.connection import BusConnection, SignalMatch
from gpuwhyd.client.shape import shaped, tables_in
from gpuwhyd.errors import BusError, ConfigError, GpuwhydError

BUS_NAME = "org.gpuwhyd1"
ROOT_PATH = "/org/gpuwhyd1"
MANAGER = "org.gpuwhyd1.Manager"

_Answer = TypeVar("_Answer")

Plain = dict[str, object]
"""One `a{sv}` as plain Python; a key that is not there is a quantity that is not known."""


class AskError(GpuwhydError):
    """The question could not be answered; the message says what to do. `exit_code` is the command's."""

    exit_code = 2


class NotRunningError(AskError):
    """Nobody owns the daemon's name on this bus."""

    exit_code = 3


class BusLostError(AskError):
    """The bus itself is away or cannot be reached."""


async def if_told(question: Awaitable[_Answer]) -> _Answer | None:
    """The answer; `None` where this daemon, perhaps an older one, does not know it. Raises NotRunningError and
    BusLostError.
    """
    try:
        return await question
    except (NotRunningError, BusLostError):
        raise
    except AskError:
        return None


class Daemon:
    """gpuwhyd, as seen through one bus connection. Never starts it: every call is sent with NO_AUTO_START."""

    def __init__(self, connection: BusConnection, bus: str) -> None:
        self._connection = connection
        self._bus = bus

    @classmethod
    async def reach(cls, bus: str) -> Self:
        """Connects to `bus` (`system`, `session` or a D-Bus address). Raises BusLostError."""
        try:
            return cls(await BusConnection.connect(bus), bus)
        except BusError as error:
            raise BusLostError(_unreachable(bus, error)) from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self._connection.close()

    async def summary(self) -> Plain:
        """Every table in `gpus` has `gpu`, its object path."""
        summary = await self._table("GetSummary")
        gpus = [gpu for gpu in cast("list[Plain]", summary.get("gpus") or []) if "gpu" in gpu]
        return {**summary, "gpus": gpus}

    async def explain(self, gpu_path: str) -> Plain:
        return await self._table("Explain", "o", (gpu_path,))

    async def metrics(self) -> list[Plain]:
        return await self._tables("GetMetrics")

    async def sources(self, gpu_path: str) -> list[Plain]:
        return await self._tables("GetSources", "o", (gpu_path,))

    async def processes(self, gpu_path: str) -> list[Plain]:
        return await self._tables("GetProcesses", "o", (gpu_path,))

    async def health(self) -> Plain:
        health = await self._table("GetHealth")
        backends = health.get("backends")
        return {**health, "backends": tables_in(backends if isinstance(backends, list) else [])}

    async def reload(self) -> None:
        """Returns when the configuration is in force. Raises ConfigError when the file is wrong, and the old one stays."""
        try:
            await self._connection.call(BUS_NAME, ROOT_PATH, MANAGER, "Reload")
        except BusError as error:
            if error.name == "org.gpuwhyd1.Error.ConfigInvalid":
                raise ConfigError(str(error)) from error
            raise _translated(error, self._bus) from error

    async def events(self, *, since_usec: int, maximum: int, **options: str) -> list[Plain]:
        """At most `maximum` past events since then, newest last. Options: `gpu` (object path), `event`, `spike_id`."""
        return await self._tables("GetEvents", "tua{sv}", (since_usec, maximum, _event_options(options)))

    async def listen(
        self, interface: str, member: str, heard: Callable[[str, tuple[object, ...]], None]
    ) -> None:
        """Calls `heard(path, body)` for each such signal of the daemon, and of nobody else."""
        await self._subscribe(
            SignalMatch(interface=interface, member=member, path=None, sender=BUS_NAME), heard
        )

    async def listen_for_owner(self, heard: Callable[[bool], None]) -> None:
        """Calls `heard(True)` when the daemon appears on the bus, `heard(False)` when it leaves."""

        def owner_changed(_path: str, body: tuple[object, ...]) -> None:
            if body[0] == BUS_NAME:
                heard(bool(body[2]))

        bus_itself = "org.freedesktop.DBus"
        match = SignalMatch(interface=bus_itself, member="NameOwnerChanged", path=None, sender=bus_itself)
        await self._subscribe(match, owner_changed)

    async def bus_lost(self) -> str:
        """Waits until the connection to the bus is gone, and says why."""
        return await self._connection.disconnected()

    async def _subscribe(self, match: SignalMatch, heard: Callable[[str, tuple[object, ...]], None]) -> None:
        try:
            await self._connection.subscribe(match, heard)
        except BusError as error:
            raise _translated(error, self._bus) from error

    async def _table(self, member: str, signature: str = "", body: tuple[object, ...] = ()) -> Plain:
        answer = shaped(await self._ask(member, signature, body))
        if not isinstance(answer, dict):
            raise _other_version(member)
        return answer

    async def _tables(self, member: str, signature: str = "", body: tuple[object, ...] = ()) -> list[Plain]:
        answer = shaped(await self._ask(member, signature, body))
        if not isinstance(answer, list):
            raise _other_version(member)
        return tables_in(answer)

    async def _ask(self, member: str, signature: str, body: tuple[object, ...]) -> object:
        try:
            answer = await self._connection.call(BUS_NAME, ROOT_PATH, MANAGER, member, signature, body)
        except BusError as error:
            raise _translated(error, self._bus) from error
        if len(answer) != 1:
            raise _other_version(member)
        return answer[0]


def _other_version(member: str) -> AskError:
    return AskError(f"gpuwhyd answered {member} in an unknown form; is it another version? gpuwhy doctor")


def _event_options(options: dict[str, str]) -> Plain:
    return {name: ObjectPath(value) if name == "gpu" else value for name, value in options.items()}


def _unreachable(bus: str, error: BusError) -> str:
    name = f"{bus} bus" if bus in {"system", "session"} else f"bus {bus}"
    hint = {
        "system": "Is dbus running? systemctl status dbus",
        "session": "It belongs to a login session; where there is none: dbus-run-session bash, a shell with a bus",
    }.get(bus, "--bus takes system, session or the address of a running bus")
    reason = str(error).removeprefix("cannot reach the D-Bus ").strip("()")
    return f"The {name} cannot be reached: {reason}. {hint}"


def _translated(error: BusError, bus: str) -> AskError:
    """What a D-Bus error means to the person who asked.

    Names of the bus's own errors: D-Bus specification, section "Standard error names" of dbus-protocol.h.
    """
    kind = (error.name or "").removeprefix("org.freedesktop.DBus.Error.")
    if kind in {"ServiceUnknown", "NameHasNoOwner"}:
        start = (
            "systemctl enable --now gpuwhyd. If it does not stay up: systemctl status gpuwhyd"
            if bus == "system"
            else f"gpuwhyd --bus {bus}"
        )
        return NotRunningError(f"gpuwhyd is not running. Start it: {start}")
    if kind in {"AccessDenied", "AuthFailed"}:
        return AskError(
            "No permission to ask gpuwhyd on this bus. Its bus policy may be missing: gpuwhyd check"
        )
    if kind in {"NoReply", "Timeout", "TimedOut"}:
        return AskError("gpuwhyd did not answer in time. See what it does: systemctl status gpuwhyd")
    if kind in {"UnknownMethod", "UnknownInterface", "UnknownObject", "InvalidArgs"}:
        return AskError(
            f"gpuwhyd and gpuwhy are not of the same version ({error}). Restart it: systemctl restart gpuwhyd"
        )
    if kind == "org.gpuwhyd1.Error.TooManyRequests":
        return AskError("gpuwhyd has too many questions of yours to answer. Wait some seconds and ask again")
    if kind == "org.gpuwhyd1.Error.HistoryUnavailable":
        return AskError(f"Past events cannot be read: {error}. See: gpuwhy doctor")
    if kind.startswith("org.gpuwhyd1.Error."):
        return AskError(str(error))
    return BusLostError(f"The bus connection to gpuwhyd failed: {error}")
