"""The command line that starts systemd-nspawn on any host."""

from pathlib import Path

# Newer systemd wants cgroup v2 alone; where the host mounts v1, a mount namespace of our own shows only v2.
_UNIFIED = 'umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup && exec systemd-nspawn "$@"'


def nspawn(directory: Path, *arguments: str) -> tuple[str, ...]:
    """A container of this root, never written to. It is powered off when the process that starts it ends, however."""
    return (
        *("setpriv", "--pdeathsig", "TERM", "unshare", "--mount", "sh", "-c", _UNIFIED, "nspawn"),
        *("--quiet", "--register=no", "--keep-unit", "--volatile=overlay", f"--directory={directory}"),
        *arguments,
    )
