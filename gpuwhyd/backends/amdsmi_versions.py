"""Whether AMD's Python wrapper and its library belong together. Pure.

The library's structures carry no version: a wrapper of another release reads garbage and notices nothing. They changed
between minor versions too (amdsmi_power_info_t: 64 bytes in ROCm 6.3.3, 48 in 6.4.4, 192 in 7.0.2), so major and minor
have to be the same.
"""

import re
from collections.abc import Sequence

_FIRST_OF_LIBRARY = 20
"""The library's versions began with the year (24.6.3 in ROCm 6.2), and went on from 25 without it."""

_OF_ROCM: dict[tuple[int, ...], tuple[int, int]] = {
    (6, 2): (24, 6),
    (6, 3): (24, 7),
    (6, 4): (25, 5),
    (6, 4, 0): (25, 3),
    (6, 4, 1): (25, 4),
    (7, 0): (26, 0),
}
"""ROCm release -> the library's version, from ROCm's release notes. The amdsmi of PyPI is an unofficial redistribution
that has ROCm's numbers instead of the library's own; 7.0.2 is its last."""

Release = tuple[int, int]


def of_library(words: Sequence[int]) -> Release | None:
    """Major and minor, from the first numbers of amdsmi_version_t.

    Until ROCm 6.3 they are year, major, minor; in 6.4 an unused year, then major and minor; since 7.0 major and minor.
    """
    for place in (1, 0):
        if words[place] >= _FIRST_OF_LIBRARY:
            return words[place], words[place + 1]
    return None


def of_wrapper(version: str) -> Release | None:
    """The library that a wrapper was made for; None when its version is not known here. `26.0.2+39589fda`, `7.0.2`."""
    match = re.match(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?", version)
    if match is None:
        return None
    numbers = tuple(int(number) for number in match.groups() if number is not None)
    if numbers[0] >= _FIRST_OF_LIBRARY:
        return numbers[0], numbers[1]
    return _OF_ROCM.get(numbers[:3]) or _OF_ROCM.get(numbers[:2])


def misfit(wrapper_version: str, words: Sequence[int]) -> str | None:
    """Why the two do not belong together, in words; None when they do."""
    library, wanted = of_library(words), of_wrapper(wrapper_version)
    if library is not None and library == wanted:
        return None
    has = "no known version" if library is None else f"version {library[0]}.{library[1]}"
    wants = "an unknown one" if wanted is None else f"{wanted[0]}.{wanted[1]}"
    return (
        f"AMD's library has {has}, and the Python wrapper amdsmi {wrapper_version or '?'} is made for {wants}"
    )
