"""The far end of a connection, played by a test: a bus that breaks the rules, at the moment the test chooses."""

import asyncio
import contextlib
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from gpuwhyd.bus import library
from gpuwhyd.bus.framing import Frame, Framer
from gpuwhyd.bus.header import MessageKind
from tests.bus.raw import with_field

Script = Callable[["Peer"], Awaitable[None]]


class Peer:
    """What the client wrote, and a way to answer it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._framer = Framer(lambda header: 1 << 27, 1 << 20)

    async def line(self) -> bytes:
        return await self.reader.readuntil(b"\r\n")

    async def authenticate(self) -> None:
        assert (await self.line()).startswith(b"\0AUTH EXTERNAL ")
        self.writer.write(b"OK 00000000000000000000000000000001\r\n")
        assert await self.line() == b"BEGIN\r\n"

    async def greet(self) -> None:
        """Up to the point where the client has its name."""
        await self.authenticate()
        hello = await self.message()
        self.answer(hello, "s", [":1.7"])

    async def message(self) -> Frame:
        while (message := self._framer.take()) is None:
            data = await self.reader.read(65536)
            if not data:
                raise EOFError
            self._framer.feed(data)
        assert isinstance(message, Frame)
        return message

    def answer(
        self,
        frame: Frame,
        signature: str = "",
        body: Sequence[object] = (),
        *,
        sender: str = "org.freedesktop.DBus",
    ) -> None:
        serial = frame.header.serial
        message = library.marshal(
            MessageKind.METHOD_RETURN, 1, reply_serial=serial, signature=signature, body=body
        )
        self.writer.write(with_sender(message, sender))


def with_sender(message: bytes, sender: str) -> bytes:
    """As only a bus can say it."""
    name = sender.encode()
    return with_field(message, 7, b"s", struct.pack("<I", len(name)) + name + b"\0")


@contextlib.asynccontextmanager
async def scripted_bus(script: Script) -> AsyncIterator[str]:
    """The address of a bus that plays `script` for each client, then hangs up."""

    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            with contextlib.suppress(
                EOFError, ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError
            ):
                await script(Peer(reader, writer))
        finally:
            writer.transport.abort()

    with tempfile.TemporaryDirectory(prefix="bus-") as directory:
        path = Path(directory) / "bus"
        server = await asyncio.start_unix_server(serve, path)
        try:
            yield f"unix:path={path}"
        finally:
            server.close()
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)
            await asyncio.sleep(0)  # the aborted transports close their sockets in the next turn
