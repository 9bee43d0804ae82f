"""The files a user sees at the top of the repository (`systemd/`, `dbus/`, `config/`, `man/`), found again at run time.

An installed wheel holds them below `gpuwhyd/data`; a checkout holds them beside the package.
"""

from pathlib import Path

_PACKAGE = Path(__file__).parent


def resource(name: str) -> Path:
    """The path of a shipped file or folder, such as `dbus/org.gpuwhyd1.Gpu.xml`.

    Raises FileNotFoundError naming both places when the installation lacks it.
    """
    places = (_PACKAGE / "data" / name, _PACKAGE.parent / name)
    for place in places:
        if place.exists():
            return place
    raise FileNotFoundError(f"gpuwhyd's own file {name} is missing; looked at {places[0]} and {places[1]}")
