"""From an address to a socket on which messages may be sent."""

import asyncio
import socket

from gpuwhyd.bus.address import socket_names
from gpuwhyd.bus.auth import authenticate
from gpuwhyd.errors import BusError


async def dial(address: str) -> socket.socket:
    """The first of the address's sockets that lets us in. BusError says what each of them answered."""
    faults: list[str] = []
    for name in socket_names(address):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            await asyncio.get_running_loop().sock_connect(sock, name)
            await authenticate(sock)
        except (OSError, BusError) as error:
            sock.close()
            detail = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            faults.append(f"{name.replace(chr(0), '@')}: {detail}")
        except BaseException:  # raised anew: also when cancelled, the socket is closed
            sock.close()
            raise
        else:
            return sock
    raise BusError(f"cannot reach the D-Bus ({'; '.join(faults)})")
