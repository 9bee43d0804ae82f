"""What was installed: `manifest.json` in the environment."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpuwhyd.errors import InstallError
from gpuwhyd.install.layout import ENVIRONMENT, inside

MANIFEST = ENVIRONMENT / "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All paths are absolute as the installed system sees them.

    `files` and `links` map a path to its SHA-256 or its target. `configuration` maps a file that the user may change
    to the SHA-256 of what was shipped. `directories` were created for these files, parents first.
    """

    version: str
    python: str
    files: dict[str, str]
    links: dict[str, str]
    configuration: dict[str, str]
    directories: list[str]


def read_manifest(root: Path) -> Manifest | None:
    """`None` when nothing is installed below `root`; InstallError when the manifest cannot be understood."""
    path = inside(root, MANIFEST)
    try:
        return _checked(Manifest(**json.loads(path.read_text("utf-8"))))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, RecursionError) as error:
        reason = f"{error!s:.100}" if str(error).isprintable() else type(error).__name__
        raise InstallError(f"{path} is damaged ({reason}); remove {path.parent} and install again") from error


def _checked(manifest: Any) -> Manifest:
    """ValueError for anything that `uninstall` must not act upon: what JSON held was not looked at yet."""
    maps = (manifest.files, manifest.links, manifest.configuration)
    if not all(isinstance(one, dict) for one in maps) or not isinstance(manifest.directories, list):
        raise ValueError("a list of files is missing")
    texts = [manifest.version, manifest.python, *(text for one in maps for text in one.values())]
    if not all(isinstance(text, str) and text.isprintable() for text in texts):
        raise ValueError("a checksum is none")
    for path in (*(path for one in maps for path in one), *manifest.directories):
        named = isinstance(path, str) and path.isprintable() and path.startswith("/")
        if not named or ".." in Path(path).parts:
            raise ValueError("a path is none")
    checked: Manifest = manifest
    return checked


def write_manifest(path: Path, manifest: Manifest) -> None:
    path.write_text(json.dumps(asdict(manifest), indent=1, sort_keys=True) + "\n")


def checksum(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inventory(folder: Path, final: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Files with checksums and links with targets in `folder`, named as if the folder were `final`."""
    files: dict[str, str] = {}
    links: dict[str, str] = {}
    for parent, directories, names in os.walk(folder):
        for name in (*directories, *names):
            path = Path(parent, name)
            named = str(final / path.relative_to(folder))
            if path.is_symlink():
                links[named] = str(path.readlink())
            elif path.is_file() and named != str(MANIFEST):
                files[named] = checksum(path)
    return files, links
