"""The command line that starts systemd-nspawn on any host."""

from pathlib import Path

# Newer systemd wants cgroup v2 alone; where the host mounts v1, a mount namespace of our own shows only v2.
# Each container gets a cgroup of its own, named after its process; those of ended ones are swept up by the next.
_START = """
umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup || exit
cd /sys/fs/cgroup
for old in gpuwhyd-test-*; do
    [ -e "/proc/${old##*-}" ] || find "$old" -depth -type d -exec rmdir {} + 2>/dev/null
done
mkdir "gpuwhyd-test-$$" && echo $$ >"gpuwhyd-test-$$/cgroup.procs" && exec systemd-nspawn "$@"
"""


def nspawn(directory: Path, *arguments: str) -> tuple[str, ...]:
    """A container of this root, never written to. It is powered off when the process that starts it ends, however."""
    return (
        *("setpriv", "--pdeathsig", "TERM", "unshare", "--mount", "sh", "-c", _START, "nspawn"),
        *("--quiet", "--register=no", "--keep-unit", "--volatile=overlay", f"--directory={directory}"),
        *arguments,
    )


def first_process(nspawn_pid: int) -> int | None:
    """PID 1 of the container, as the host numbers it; `None` while nspawn is not that far.

    nspawn has other children before, which are still in the host's namespaces.
    """
    for pid in children(nspawn_pid):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        [numbers] = [line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")]
        if len(numbers) > 1 and numbers[-1] == "1" and "Name:\tsystemd\n" in status:
            return pid
    return None


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
