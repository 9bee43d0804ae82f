"""The SASL handshake of a D-Bus client: EXTERNAL, the identity the kernel vouches for.

Descriptor passing is never asked for, so no peer can hand us one.
"""

import asyncio
import os
import socket

from gpuwhyd.bus.codec import clean_text
from gpuwhyd.errors import BusError

# libdbus gives up on authentication lines of 16 KiB (MAX_BUFFER in dbus-auth.c); a real answer has some 40 bytes.
LONGEST_LINE_BYTES = 16 * 1024


async def authenticate(sock: socket.socket) -> None:
    """Goes from a fresh connection to the point where messages may be sent.

    `sock` is connected and non-blocking. No deadline of its own: the caller sets one. Raises BusError when the bus
    refuses or hangs up, OSError as the socket does.
    """
    loop = asyncio.get_running_loop()
    identity = str(os.geteuid()).encode().hex()
    await loop.sock_sendall(sock, b"\0AUTH EXTERNAL " + identity.encode() + b"\r\n")
    answer = await _line(loop, sock)
    if not answer.startswith(b"OK"):
        raise BusError(
            f"the bus refused uid {os.geteuid()}: {clean_text(answer.decode(errors='replace'), 100)}"
        )
    await loop.sock_sendall(sock, b"BEGIN\r\n")


async def _line(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes:
    """One line without its end. The server is silent after it until BEGIN, so nothing of a message is lost."""
    received = bytearray()
    while not received.endswith(b"\r\n"):
        if len(received) > LONGEST_LINE_BYTES:
            raise BusError("the bus sent no end of line during authentication")
        chunk = await loop.sock_recv(sock, 4096)
        if not chunk:
            raise BusError("the bus closed the connection during authentication")
        received += chunk
    return bytes(received[:-2])
