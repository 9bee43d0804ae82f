"""Kernel uevents: what is about a GPU is heard, what is forged or about something else is not, a flood costs little."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from itertools import pairwise

import hypothesis
import hypothesis.strategies as st
import pytest

from gpuwhyd import uevents
from gpuwhyd.uevents import LookTimes, UeventWatch, concerns_gpus, is_of_the_kernel, parsed, watched
from tests.netlink import KERNEL_GROUP, card_uevent, in_network, sender, through_the_kernel, uevent

CARD = "/devices/pci0000:00/0000:00:01.0/0000:01:00.0"
ROOT_CREDENTIALS = struct.pack("=iII", 0, 0, 0)


def test_a_message_is_read_as_the_kernel_writes_it() -> None:
    event = parsed(
        b"bind@/devices/pci0000:00/0000:00:01.0/0000:01:00.0\0ACTION=bind\0"
        b"DEVPATH=/devices/pci0000:00/0000:00:01.0/0000:01:00.0\0SUBSYSTEM=pci\0DRIVER=amdgpu\0PCI_CLASS=30000\0"
        b"PCI_ID=1002:73FF\0PCI_SLOT_NAME=0000:01:00.0\0MODALIAS=pci:v00001002d=\0SEQNUM=4711\0"
    )
    assert event is not None
    assert (event.action, event.device_path, event.subsystem) == ("bind", CARD, "pci")
    assert event.properties["MODALIAS"] == "pci:v00001002d="
    assert event.properties["SEQNUM"] == "4711"


@pytest.mark.parametrize(
    "message", [b"", b"\0", b"libudev\0\xfe\xed\xca\xfe\0\0", b"add", b"@/devices/x\0", b"add@devices\0A=B\0"]
)
def test_what_is_not_of_the_kernels_form_is_nothing(message: bytes) -> None:
    assert parsed(message) is None


@hypothesis.given(st.binary(max_size=300))
def test_no_bytes_are_a_fault(message: bytes) -> None:
    for text in (message, b"add@/devices/x\0SUBSYSTEM=pci\0PCI_CLASS=" + message):
        if (event := parsed(text)) is not None:
            concerns_gpus(event)


@pytest.mark.parametrize(
    ("message", "concerns"),
    [
        (card_uevent("add"), True),
        (card_uevent("remove", pci_class="38000"), True),
        (card_uevent("bind", pci_class="30200"), True),
        (card_uevent("unbind", pci_class="120000"), True),
        (card_uevent("change"), False),
        (card_uevent("add", pci_class="40300"), False),  # its audio function
        (card_uevent("add", pci_class="C0330"), False),  # its USB controller
        (card_uevent("add", pci_class="nonsense"), False),
        (uevent("add", f"{CARD}/drm/card1", SUBSYSTEM="drm", DEVTYPE="drm_minor", MINOR="1"), True),
        (uevent("remove", f"{CARD}/drm/renderD128", SUBSYSTEM="drm", DEVTYPE="drm_minor"), True),
        (uevent("add", f"{CARD}/drm/card1/card1-DP-4", SUBSYSTEM="drm", DEVTYPE="drm_connector"), False),
        (uevent("change", f"{CARD}/drm/card1", SUBSYSTEM="drm", HOTPLUG="1"), False),
        (uevent("add", f"{CARD}/hwmon/hwmon7", SUBSYSTEM="hwmon"), True),
        (uevent("add", "/devices/virtual/kfd/kfd", SUBSYSTEM="kfd"), True),
        (uevent("add", "/module/amdgpu", SUBSYSTEM="module"), True),
        (uevent("remove", "/module/nvidia", SUBSYSTEM="module"), True),
        (uevent("add", "/module/snd_hda_intel", SUBSYSTEM="module"), False),
        (uevent("change", "/devices/x/power_supply/BAT0", SUBSYSTEM="power_supply"), False),
        (uevent("add", "/devices/virtual/net/veth0", SUBSYSTEM="net", INTERFACE="veth0"), False),
        (uevent("add", "/devices/x"), False),
    ],
)
def test_only_cards_their_drivers_and_their_sensors_are_of_interest(message: bytes, concerns: bool) -> None:
    event = parsed(message)
    assert event is not None
    assert concerns_gpus(event) is concerns


@pytest.mark.parametrize(
    ("address", "credentials", "genuine"),
    [
        ((0, KERNEL_GROUP), ROOT_CREDENTIALS, True),
        ((4242, KERNEL_GROUP), ROOT_CREDENTIALS, False),  # root's own, too: udev's are such
        ((4242, 0), ROOT_CREDENTIALS, False),
        ((0, 0), ROOT_CREDENTIALS, False),
        ((0, 2), ROOT_CREDENTIALS, False),
        ((0, KERNEL_GROUP), struct.pack("=iII", 4242, 1000, 1000), False),
        ((0, KERNEL_GROUP), b"", False),
    ],
)
def test_only_the_kernel_is_believed(address: tuple[int, int], credentials: bytes, genuine: bool) -> None:
    assert is_of_the_kernel(address, credentials) is genuine


def looks(heard_at: list[float], until: float) -> list[float]:
    """When is looked, if there are messages at these times; as the loop does it: a timer for `next_at`."""
    times, waiting, looked, now = LookTimes(), list(heard_at), [], 0.0
    while True:
        nexts = [at for at in (times.next_at, waiting[0] if waiting else None) if at is not None]
        if not nexts or (now := min(nexts)) > until:
            return looked
        if waiting and waiting[0] <= now:
            times.heard(waiting.pop(0))
        if times.is_due(now):
            looked.append(now)


def test_one_message_is_looked_at_soon_and_once_more_when_all_is_quiet() -> None:
    assert looks([10.0], 100.0) == [10.5, 13.0]


def test_the_dozens_of_a_driver_load_cost_one_look_a_second_and_one_after_it() -> None:
    load = [10.0 + 0.05 * number for number in range(50)]  # until 12.45
    assert looks(load, 100.0) == pytest.approx([10.5, 11.55, 12.6, 15.45], abs=0.1)


def test_a_flood_is_never_looked_at_more_often_than_once_a_second() -> None:
    looked = looks([10.0 + 0.01 * number for number in range(6000)], 100.0)
    assert len(looked) <= 60 + 2, "it lasts 60 s; one more is still to come then, and one when it is over"
    gaps = [after - before for before, after in pairwise(looked)]
    assert 1.0 <= min(gaps[:-1]) <= max(gaps[:-1]) < 1.1


def test_two_changes_far_apart_are_two() -> None:
    assert looks([10.0, 20.0], 100.0) == [10.5, 13.0, 20.5, 23.0]


# -- the kernel's own socket ------------------------------------------------------------------------------------------


class Heard:
    """What a watch on a genuine socket leads to, with no waiting for things to be quiet."""

    def __init__(self, *, receive_buffer_bytes: int | None = None) -> None:
        def both() -> tuple[socket.socket, socket.socket]:
            return uevents.opened(), sender()

        ours, self.process = in_network(both)
        if receive_buffer_bytes is not None:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.port = ours.getsockname()[0]
        self.looked = asyncio.Event()
        times = LookTimes(soon_seconds=0.0, apart_seconds=0.0, quiet_seconds=3600.0)
        self.watch = UeventWatch(ours, self.looked.set, times)

    async def look(self) -> None:
        async with asyncio.timeout(10):
            await self.looked.wait()
        self.looked.clear()

    def close(self) -> None:
        self.watch.close()
        self.process.close()


def with_heard(test: Callable[[Heard], Awaitable[None]], **options: int) -> None:
    async def body() -> None:
        heard = Heard(**options)
        try:
            await test(heard)
        finally:
            heard.close()

    asyncio.run(body())


@pytest.mark.root
def test_a_card_that_the_kernel_adds_is_looked_for() -> None:
    async def test(heard: Heard) -> None:
        through_the_kernel(heard.process, card_uevent("add"))
        await heard.look()

    with_heard(test)


@pytest.mark.root
def test_what_a_process_sends_is_not_heard_however_it_sends_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="gpuwhyd.uevents")

    async def test(heard: Heard) -> None:
        heard.process.sendto(uevent("add", "/forged/to-all", SUBSYSTEM="drm"), (0, KERNEL_GROUP))
        heard.process.sendto(uevent("add", "/forged/to-us", SUBSYSTEM="drm"), (heard.port, 0))
        through_the_kernel(heard.process, uevent("add", "/genuine", SUBSYSTEM="drm"))
        await heard.look()

    with_heard(test)
    assert [record.getMessage() for record in caplog.records] == ["uevent: add /genuine"]


@pytest.mark.root
def test_messages_that_were_lost_in_a_flood_are_looked_for() -> None:
    async def test(heard: Heard) -> None:
        for number in range(200):  # of no interest, and more than the socket holds
            through_the_kernel(
                heard.process, uevent("add", f"/devices/virtual/net/v{number}", SUBSYSTEM="net")
            )
        await heard.look()

    with_heard(test, receive_buffer_bytes=4096)


@pytest.mark.root
def test_after_a_flood_of_more_than_one_batch_the_last_message_is_heard() -> None:
    async def test(heard: Heard) -> None:
        for number in range(70):
            through_the_kernel(
                heard.process, uevent("add", f"/devices/virtual/net/v{number}", SUBSYSTEM="net")
            )
        through_the_kernel(heard.process, card_uevent("remove"))
        await heard.look()

    with_heard(test, receive_buffer_bytes=1 << 20)


@pytest.mark.root
def test_a_closed_watch_keeps_no_descriptor_and_looks_no_more() -> None:
    async def test(heard: Heard) -> None:
        through_the_kernel(heard.process, card_uevent("add"))
        heard.watch.close()
        heard.watch.close()
        await asyncio.sleep(0)
        assert not heard.looked.is_set()

    with_heard(test)


def test_where_netlink_cannot_be_had_one_line_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_arguments: object) -> socket.socket:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(socket, "socket", refused)
    caplog.set_level("INFO", logger="gpuwhyd.uevents")
    assert watched(lambda: None) is None
    (record,) = caplog.records
    assert record.levelname == "INFO"
    assert "no kernel uevents" in record.getMessage()


def test_a_socket_that_breaks_is_let_go_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(socket.socket):
        def recvmsg(self, *_sizes: int) -> tuple:  # type: ignore[override]
            raise OSError(12, "Cannot allocate memory")

    async def body() -> None:
        ours, theirs = socket.socketpair()
        broken = Broken(fileno=ours.detach())
        UeventWatch(broken, lambda: None)
        theirs.send(b"x")
        async with asyncio.timeout(10):
            while broken.fileno() != -1:
                await asyncio.sleep(0)
        theirs.close()

    asyncio.run(body())
    (record,) = caplog.records
    assert "cannot be read any more" in record.getMessage()
