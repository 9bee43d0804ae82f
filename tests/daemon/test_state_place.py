"""Where the state is kept, by the environment."""

import os
from pathlib import Path
from unittest import mock

import pytest

from gpuwhyd.daemon import Options, _state_path

NOBODY_KNOWN = 4_000_000_000
"""A user id in no /etc/passwd, as a container's or a unit's may be."""


@pytest.mark.parametrize(
    ("uid", "environment", "place"),
    [
        (1000, {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "HOME": "/home/eva"}, "/var/lib/a/state.json"),
        (0, {"HOME": "/root"}, "/var/lib/gpuwhyd/state.json"),
        (0, {"STATE_DIRECTORY": ":/var/lib/b"}, "/var/lib/gpuwhyd/state.json"),
        (1000, {"XDG_STATE_HOME": "/x", "HOME": "/home/eva"}, "/x/gpuwhyd/state.json"),
        (1000, {"XDG_STATE_HOME": "x", "HOME": "/home/eva"}, "/home/eva/.local/state/gpuwhyd/state.json"),
        (NOBODY_KNOWN, {}, None),
    ],
)
def test_the_state_is_kept_where_somebody_meant_it_to_be(
    uid: int, environment: dict[str, str], place: str | None
) -> None:
    with (
        mock.patch.dict(os.environ, environment, clear=True),
        mock.patch("os.geteuid", return_value=uid),
        mock.patch("os.getuid", return_value=uid),
    ):
        found = _state_path(Options())
    assert found == (None if place is None else Path(place))
