"""What was installed: `manifest.json` in the environment."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

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
        return Manifest(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise InstallError(f"{path} is damaged ({error}); remove {path.parent} and install again") from error


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
