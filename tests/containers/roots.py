"""Debian root file systems and the Python packages for them, built once and kept in the user's cache.

Nothing half-built is ever seen: each is made in a temporary folder under a lock and renamed when it is whole.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.containers.nspawn import nspawn

REPOSITORY = Path(__file__).parents[2]
SUITES = ("bookworm", "trixie")
"""Debian 12 (systemd 252, Python 3.11) and 13 (systemd 257, Python 3.13)."""
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "polkitd", "procps", "python3", "python3-venv", "ca-certificates"),
    *("gcc", "libc6-dev", "libsystemd-dev", "pkg-config", "python3-dev"),  # systemd-python has no wheel
)
_INTERNET = (
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
)
_BUILD_SECONDS = 900.0


def root(suite: str) -> Path:
    """A Debian that has never been booted; to be used with --volatile=overlay, so that it stays so."""

    def build(folder: Path) -> None:
        _run(
            *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
            *(suite, str(folder)),
            hint="apt install mmdebstrap",
        )
        folder.chmod(0o755)

    return _kept(f"{suite}-{_key(*PACKAGES)}", build)


def wheelhouse(suite: str) -> Path:
    """Wheels of all that gpuwhyd requires, and of what builds gpuwhyd itself, for this Debian's Python."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    wanted = (*project["project"]["dependencies"], *project["build-system"]["requires"])
    debian = root(suite)

    def build(folder: Path) -> None:
        (folder / "requirements").write_text("\n".join(wanted))
        inside = (
            "python3 -m venv /tmp/build && cd /out &&"
            " /tmp/build/bin/pip wheel --quiet --use-pep517 --wheel-dir . --requirement requirements"
        )
        environment, folders = internet()
        _run(
            *nspawn(
                debian,
                *("--pipe", "--resolv-conf=bind-host", f"--bind={folder}:/out"),
                *(f"--bind-ro={path}" for path in folders),
                *(f"--setenv={name}={value}" for name, value in environment.items()),
                *("/bin/sh", "-c", inside),
            ),
            hint="apt install systemd-container",
        )

    return _kept(f"{suite}-wheels-{_key(*wanted, *PACKAGES)}", build)


def internet() -> tuple[Mapping[str, str], tuple[Path, ...]]:
    """How this machine reaches package indexes: variables to set, and files and folders that must be there."""
    environment = {
        name: value for name in _INTERNET for name in (name, name.lower()) if (value := os.environ.get(name))
    }
    environment |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout  # empty where this environment has no pip
    for line in listed.splitlines():
        key, _, quoted = line.partition("=")
        if key.startswith("global."):
            name = "PIP_" + key.removeprefix("global.").replace("-", "_").upper()
            environment.setdefault(name, quoted.strip("'\"").replace("\\n", " "))
    words = [word.removeprefix("file://") for value in environment.values() for word in value.split()]
    paths = {Path(word) for word in words if word.startswith("/") and Path(word).exists()}
    # An index page links to its files beside the folder of pages.
    folders = {path.parent if path.name == "simple" else path for path in paths}
    return environment, tuple(sorted(folders | {Path("/etc/ssl/certs/ca-certificates.crt")}))


def _kept(name: str, build: Callable[[Path], None]) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpuwhyd-roots"
    cache.mkdir(parents=True, exist_ok=True)
    ready = cache / name
    if not ready.exists():
        with _lock(cache / f"{name}.lock"):
            if not ready.exists():
                for stale in cache.glob(f"{name}.tmp-*"):
                    shutil.rmtree(stale)
                unfinished = Path(tempfile.mkdtemp(prefix=f"{name}.tmp-", dir=cache))
                build(unfinished)
                unfinished.rename(ready)
    return ready


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _key(*words: str) -> str:
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:12]


def _run(*command: str, hint: str) -> None:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=_BUILD_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise RuntimeError(f"{command[0]} is missing: {hint}") from error
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
