"""What stands in the environment: systemd sets it, and whoever starts the daemon by hand may set anything."""

import asyncio
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpuwhyd.daemon import Options, _state_path
from gpuwhyd.outputs.notify import NotifyOutput
from tests.fuzz.mutation import HOSTILE_TEXTS, examples
from tests.outputs.events import report

TEXTS = st.one_of(
    st.sampled_from([text for text in HOSTILE_TEXTS if "\0" not in text and "\ud800" not in text]),
    st.binary(max_size=40).map(lambda raw: os.fsdecode(raw.replace(b"\0", b""))),
)
"""As os.environ holds it: no NUL, and what is no UTF-8 as surrogates."""
MANAGER = "the socket of the test's own"
NUMBERS = st.one_of(
    TEXTS,
    st.sampled_from(["0", "00", "1", "120000000", str(2**64 - 1), "9" * 19, "9" * 400, "1e6", "+5", "\u0663", "1_0"]),
    st.integers(-(2**65), 2**65).map(str),
)  # fmt: skip


@pytest.fixture(scope="module")
def manager() -> Iterator[socket.socket]:
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as receiver,
    ):
        receiver.bind(f"{folder}/notify")
        yield receiver


@examples(150)
@given(
    st.fixed_dictionaries(
        {
            "NOTIFY_SOCKET": st.one_of(
                st.just(MANAGER),
                st.just(MANAGER),
                TEXTS,
                TEXTS.map(lambda text: "@gpuwhyd-test-" + text) | TEXTS.map(lambda text: "/no/such/" + text),
            ),
        },
        optional={
            "WATCHDOG_USEC": NUMBERS,
            "WATCHDOG_PID": st.just(str(os.getpid())) | NUMBERS,
        },
    )
)
@example(environment={"NOTIFY_SOCKET": MANAGER, "WATCHDOG_USEC": "\u0663"})
def test_any_environment_is_notified_or_not_and_the_watchdog_fed_only_when_it_is_ours(
    manager: socket.socket, environment: dict[str, str]
) -> None:
    place = manager.getsockname()
    is_asked = environment.get("NOTIFY_SOCKET") == MANAGER
    output = NotifyOutput.from_environment(
        environment | ({"NOTIFY_SOCKET": place} if is_asked else {}),
    )
    asyncio.run(output.publish(report(headline="quiet")))
    output.stopping()
    if not is_asked:
        with pytest.raises(BlockingIOError):
            manager.recv(8192)
        return
    told = manager.recv(8192).decode().splitlines()
    assert manager.recv(8192) == b"STOPPING=1"
    usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    is_number = usec.isascii() and usec.isdecimal() and 0 < int(usec[:400]) < 10**19
    is_fed = is_number and len(usec) < 20 and pid in ("", str(os.getpid()))
    assert told == ["READY=1", "STATUS=quiet", *["WATCHDOG=1"] * is_fed]


PLACES = st.one_of(
    TEXTS,
    TEXTS.map(lambda text: "/var/lib/" + text),
    st.sampled_from(["/var/lib/gpuwhyd", "/var/lib/gpuwhyd:/var/lib/other", ":/var/lib/gpuwhyd", ":", "/", "here"]),
)  # fmt: skip


@examples(150)
@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("STATE_DIRECTORY", "XDG_STATE_HOME", "HOME"), PLACES)),
    st.booleans(),
    st.booleans(),
)
def test_any_environment_gives_a_place_for_the_state_or_none_and_never_one_that_nobody_meant(
    environment: dict[str, str], is_root: bool, is_known: bool
) -> None:
    uid = 0 if is_root else 1000 if is_known else 4_000_000_000  # the last is in no /etc/passwd
    with (
        mock.patch.dict(os.environ, environment, clear=True),
        mock.patch("os.geteuid", return_value=uid),
        mock.patch("os.getuid", return_value=uid),
    ):
        found = _state_path(Options())
        assert _state_path(Options(simulate="desktop")) is None
        assert _state_path(Options(state_dir=Path("here"))) == Path("here/state.json")
    first = environment.get("STATE_DIRECTORY", "").split(":")[0]
    if first:
        assert found == Path(first) / "state.json"
    elif is_root:
        assert found == Path("/var/lib/gpuwhyd/state.json")
    else:
        assert found is None or (found.is_absolute() and found.parts[-2:] == ("gpuwhyd", "state.json"))
        home = environment.get("XDG_STATE_HOME", "")
        if home.startswith("/"):
            assert found == Path(home) / "gpuwhyd/state.json"
        elif environment.get("HOME", "").startswith("/"):
            assert found == Path(environment["HOME"]) / ".local/state/gpuwhyd/state.json"
