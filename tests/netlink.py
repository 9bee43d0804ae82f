"""Genuine kernel uevents, in a network namespace of a test's own, where no other program hears them. Needs root.

What a privileged process sends to the kernel's end of NETLINK_KOBJECT_UEVENT, the kernel itself sends on to group 1 of that
namespace (uevent_net_rcv in lib/kobject_uevent.c): LXD hot-plugs devices into its containers in this way.
"""

import ctypes
import os
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

NETLINK_KOBJECT_UEVENT = 15
KERNEL_GROUP = 1
_CLONE_NEWNET = 0x40000000
_NLMSG_MIN_TYPE, _NLM_F_REQUEST = 16, 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def uevent(action: str, path: str, **properties: str) -> bytes:
    """As the kernel writes it; SEQNUM is added by the kernel."""
    pairs = {"ACTION": action, "DEVPATH": path, **properties}
    return f"{action}@{path}\0".encode() + b"".join(
        f"{key}={value}\0".encode() for key, value in pairs.items()
    )


def card_uevent(action: str, *, address: str = "0000:01:00.0", pci_class: str = "30000") -> bytes:
    return uevent(
        action,
        f"/devices/pci0000:00/0000:00:01.0/{address}",
        SUBSYSTEM="pci",
        PCI_CLASS=pci_class,
        PCI_ID="10DE:2484",
        PCI_SLOT_NAME=address,
    )


def in_network(make: Callable[[], T], *, of_pid: int | None = None) -> T:
    """What `make` gives in a thread that lives in a new network namespace, or in that of another process.

    A socket stays in the namespace in which it was made.
    """

    def work() -> T:
        if of_pid is None:
            _check(_LIBC.unshare(_CLONE_NEWNET))
        else:
            descriptor = os.open(f"/proc/{of_pid}/ns/net", os.O_RDONLY)
            try:
                _check(_LIBC.setns(descriptor, _CLONE_NEWNET))
            finally:
                os.close(descriptor)
        return make()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def sender() -> socket.socket:
    """Any process's end: has a port id of its own."""
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT)
    netlink.bind((0, 0))
    return netlink


def through_the_kernel(netlink: socket.socket, message: bytes) -> None:
    header = struct.pack("=IHHII", 16 + len(message), _NLMSG_MIN_TYPE, _NLM_F_REQUEST, 0, 0)
    netlink.sendto(header + message, (0, 0))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
