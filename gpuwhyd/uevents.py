r"""The kernel's own word that a card, a driver or a sensor came or went, so that nobody has to look for it all the time.

A message of NETLINK_KOBJECT_UEVENT is `ACTION@DEVPATH\0KEY=VALUE\0...` (lib/kobject_uevent.c); group 1 is the kernel's,
group 2 udev's. A container or a sandbox may hear none: that the backends look now and then is the safety net, and why
nothing here is ever needed.
"""

import asyncio
import errno
import logging
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

log = logging.getLogger(__name__)

NETLINK_KOBJECT_UEVENT = 15
KERNEL_GROUP = 1

MESSAGE_LIMIT_BYTES = 8192
"""The kernel's environment is at most 2048 bytes (UEVENT_BUFFER_SIZE), a path at most 4096."""
_BATCH = 64
"""Messages read at a stretch: a flood must not hold up the event loop."""
_CREDENTIALS = struct.Struct("=iII")
"""struct ucred: pid, uid, gid."""

COME_AND_GO = frozenset({"add", "remove", "bind", "unbind"})
"""`change` is the rest, and comes with each monitor and each percent of a battery."""
DISPLAY_CLASSES = frozenset({0x03, 0x12})
"""PCI base classes: display controller, processing accelerator."""
DRIVERS = frozenset({"nvidia", "amdgpu", "i915", "xe"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Uevent:
    action: str
    device_path: str
    """Below /sys."""
    properties: Mapping[str, str]

    @property
    def subsystem(self) -> str:
        return self.properties.get("SUBSYSTEM", "")


def parsed(message: bytes) -> Uevent | None:
    """One message; `None` when it is not of the kernel's form, as udev's own are not."""
    head, *pairs = message.decode("utf-8", "replace").split("\0")
    action, at, device_path = head.partition("@")
    if not action or not at or not device_path.startswith("/"):
        return None
    properties = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    return Uevent(action=action, device_path=device_path, properties=properties)


def concerns_gpus(event: Uevent) -> bool:
    """Whether a card, its driver, its DRM or KFD device, or a hwmon chip came or went."""
    if event.action not in COME_AND_GO:
        return False
    match event.subsystem:
        case "drm":
            return event.properties.get("DEVTYPE") != "drm_connector"  # a monitor behind a dock
        case "hwmon" | "kfd":
            return True
        case "pci":
            return _base_class(event.properties.get("PCI_CLASS", "")) in DISPLAY_CLASSES
        case "module":
            return event.device_path.rpartition("/")[2] in DRIVERS
        case _:
            return False


def _base_class(pci_class: str) -> int | None:
    """`30000` -> 3: the kernel writes it in hexadecimal, without leading zeros."""
    try:
        return int(pci_class, 16) >> 16
    except ValueError:
        return None


def is_of_the_kernel(sender: tuple[int, int], credentials: bytes) -> bool:
    """Whether a message came from the kernel. No process has the port id 0, whatever it may send to ours."""
    if sender != (0, KERNEL_GROUP) or len(credentials) != _CREDENTIALS.size:
        return False
    uid: int = _CREDENTIALS.unpack(credentials)[1]
    return uid == 0


class LookTimes:
    """When to look after what was heard: soon, not too often, and once more when all is quiet. Pure.

    The load of a driver sends dozens of events over some seconds, and the card may answer only after the last.
    """

    def __init__(
        self, *, soon_seconds: float = 0.5, apart_seconds: float = 1.0, quiet_seconds: float = 3.0
    ) -> None:
        self._soon_seconds = soon_seconds
        self._apart_seconds = apart_seconds
        self._quiet_seconds = quiet_seconds
        self._looked_at = float("-inf")
        self._soon_at: float | None = None
        self._quiet_at: float | None = None

    def heard(self, now: float) -> None:
        if self._soon_at is None:
            self._soon_at = max(now + self._soon_seconds, self._looked_at + self._apart_seconds)
        self._quiet_at = now + self._quiet_seconds

    @property
    def next_at(self) -> float | None:
        return min((at for at in (self._soon_at, self._quiet_at) if at is not None), default=None)

    def is_due(self, now: float) -> bool:
        """Whether to look now; True is said once."""
        soon = self._soon_at is not None and now >= self._soon_at
        quiet = self._quiet_at is not None and now >= self._quiet_at
        if not soon and not quiet:
            return False
        self._looked_at, self._soon_at = now, None
        if quiet:
            self._quiet_at = None
        return True


class UeventWatch:
    """Calls `look` in the running event loop when it is time to look at what there is."""

    def __init__(
        self, netlink: socket.socket, look: Callable[[], None], times: LookTimes | None = None
    ) -> None:
        """Takes the socket over; `opened` gives one."""
        self._netlink = netlink
        self._look = look
        self._times = times or LookTimes()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._loop.add_reader(netlink, self._read)

    def close(self) -> None:
        """May be called twice."""
        if self._netlink.fileno() == -1:
            return
        self._loop.remove_reader(self._netlink)
        self._netlink.close()
        if self._timer is not None:
            self._timer.cancel()

    def _read(self) -> None:
        for _ in range(_BATCH):
            try:
                concerns = self._next_concerns_gpus()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    log.warning("kernel uevents cannot be read any more (%s); cards are looked for", error)
                    self.close()
                    return
                concerns = True  # some were lost: any of them may have been about a card
            if concerns:
                self._times.heard(self._loop.time())
                self._arm()

    def _next_concerns_gpus(self) -> bool:
        """Whether the next message is about a GPU. Raises OSError."""
        message, ancillary, flags, sender = self._netlink.recvmsg(
            MESSAGE_LIMIT_BYTES, socket.CMSG_SPACE(_CREDENTIALS.size)
        )
        credentials = next(
            (
                data
                for level, kind, data in ancillary
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
            ),
            b"",
        )
        if flags & socket.MSG_TRUNC or not is_of_the_kernel(sender, credentials):
            return False
        event = parsed(message)
        if event is None or not concerns_gpus(event):
            return False
        log.debug("uevent: %s %s", event.action, event.device_path)
        return True

    def _arm(self) -> None:
        """The present timer may stay when it comes no later than it has to: it will see."""
        next_at = self._times.next_at
        if next_at is None or (self._timer is not None and self._timer.when() <= next_at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(next_at, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        if self._times.is_due(self._loop.time()):
            self._look()
        self._arm()


def opened() -> socket.socket:
    """A socket that hears the kernel's uevents; anyone may have one. Raises OSError."""
    netlink = socket.socket(
        socket.AF_NETLINK,
        socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
        NETLINK_KOBJECT_UEVENT,
    )
    try:
        netlink.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        netlink.bind((0, KERNEL_GROUP))
    except OSError:
        netlink.close()
        raise
    return netlink


def watched(look: Callable[[], None]) -> UeventWatch | None:
    """Watches from now on; `None` where that cannot be, which is logged once. To be called in the running event loop."""
    try:
        netlink = opened()
    except OSError as error:
        log.info("no kernel uevents (%s): cards that come and go are noticed a little later", error)
        return None
    return UeventWatch(netlink, look)
