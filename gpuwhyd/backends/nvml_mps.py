"""MPS, CUDA's Multi-Process Service: programs share a card through a server process that computes for them.

NVML lists the clients apart and the server among the compute processes (nvidia-smi: `M+C` and `C`). Whom the driver's
samples name is documented nowhere and differs: up to Pascal all clients' work is in the server's one context; since
Volta each client has a context of its own. Either way it is work that the clients asked for.
"""

from collections.abc import Mapping
from pathlib import Path

from gpuwhyd.backends.nvml_samples import Busy

CLIENT = "mps"
"""The kind of process in `kinds` below."""
_SERVER = "nvidia-cuda-mps"
"""What the kernel keeps, 15 characters, of nvidia-cuda-mps-server. The control daemon is called so too; it uses no card."""


class MpsServers:
    """Tells the servers among a card's processes, by name."""

    def __init__(self, procfs: Path) -> None:
        self._procfs = procfs
        self._known: dict[int, bool] = {}

    def among(self, kinds: Mapping[int, str]) -> frozenset[int]:
        """Pids of servers; looked for only while there are clients. A server without any is a process like others."""
        if CLIENT not in kinds.values():
            self._known.clear()
            return frozenset()
        self._known = {
            pid: self._known[pid] if pid in self._known else self._is_server(pid)
            for pid, kind in kinds.items()
            if kind == "compute"
        }
        return frozenset(pid for pid, is_server in self._known.items() if is_server)

    def _is_server(self, pid: int) -> bool:
        try:
            return (self._procfs / str(pid) / "comm").read_text(errors="replace").strip() == _SERVER
        except OSError:  # it has just ended, or its name is hidden from us
            return False


def work_of_clients(
    work: Mapping[int, Busy], kinds: Mapping[int, str], servers: frozenset[int]
) -> dict[int, Busy | None]:
    """`work` by pid without the servers; None for a client that worked nobody knows how much.

    Where clients have samples of their own, the server's would count their work twice. Where the server alone has
    any, they are its clients' together and there is no telling them apart.
    """
    others: dict[int, Busy | None] = {pid: busy for pid, busy in work.items() if pid not in servers}
    if len(others) == len(work):
        return others
    clients = [pid for pid, kind in kinds.items() if kind == CLIENT]
    if not any(pid in work for pid in clients):
        others.update(dict.fromkeys(clients))
    return others
