"""A /proc made of plain files, so that a test decides what stands in them and when they vanish."""

import os
import shutil
import threading
from pathlib import Path

STAT_TAIL = (
    "1 2 3 0 -1 4194304 10 0 0 0 1 1 0 0 20 0 {threads} 0 {start_ticks} 1000 10 18446744073709551615 0"
)


def stat_line(
    pid: int = 4242, comm: str = "blender", *, state: str = "S", threads: int = 1, start_ticks: int = 81723
) -> bytes:
    tail = STAT_TAIL.format(threads=threads, start_ticks=start_ticks)
    return f"{pid} ({comm}) {state} {tail}\n".encode(errors="surrogateescape")


def add_process(
    procfs: Path,
    pid: int = 4242,
    comm: str = "blender",
    *,
    start_ticks: int = 81723,
    state: str = "S",
    threads: int = 1,
    uid: int = 0,
    cgroup: str = "0::/user.slice/user-0.slice/session-2.scope\n",
    command_line: bytes = b"blender\0-b\0scene.blend\0",
) -> Path:
    process = procfs / str(pid)
    process.mkdir(parents=True, exist_ok=True)
    (process / "stat").write_bytes(
        stat_line(pid, comm, state=state, threads=threads, start_ticks=start_ticks)
    )
    (process / "status").write_text(f"Name:\t{comm}\nPid:\t{pid}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
    (process / "cmdline").write_bytes(command_line)
    (process / "cgroup").write_text(cgroup)
    (process / "exe").unlink(missing_ok=True)
    (process / "exe").symlink_to(f"/usr/bin/{comm}")
    return process


def vanish_when_read(process: Path, name: str) -> threading.Thread:
    """The whole process vanishes at the moment a reader opens this file of it. Join the thread afterwards.

    The file becomes a FIFO: whoever opens it waits for the other side, which first takes the tree away.
    """
    content = (process / name).read_bytes()
    (process / name).unlink()
    os.mkfifo(process / name)

    def serve() -> None:
        with (process / name).open("wb") as writer:
            shutil.rmtree(process)
            writer.write(content)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread
