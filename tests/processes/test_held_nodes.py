"""How many descriptors of GPUs' nodes are watched, and whose."""

import pytest

from gpuwhyd.processes.held_nodes import OF_ALL, OF_ONE_SHARER, Descriptor, HeldNodes, sharer_of


def descriptors(pid: int, count: int) -> list[Descriptor]:
    return [
        Descriptor(pid=pid, number=number, node="renderD128", absent_at_seconds=None)
        for number in range(count)
    ]


def flood(held: HeldNodes, sharer: str, first_pid: int) -> None:
    """More than one sharer has room for, and than all have together."""
    for pid in range(first_pid, first_pid + 100):
        held.keep(pid, descriptors(pid, 64), sharer)


def test_a_flood_of_one_user_takes_from_that_user_only() -> None:
    held = HeldNodes()
    assert held.keep(1, descriptors(1, 3), "user-1000.slice")
    flood(held, "user-1000.slice", 100)
    assert len(list(held)) == OF_ONE_SHARER
    assert held.keep(9000, descriptors(9000, 64), "ollama.service")
    assert held.keep(9001, descriptors(9001, 64), "user-1001.slice")
    assert not held.keep(9002, descriptors(9002, 1), "user-1000.slice")
    assert (len(held.of(1)), len(held.of(9000)), len(held.of(9002))) == (3, 64, 0)


def test_many_floods_together_are_bounded_and_who_was_there_stays() -> None:
    held = HeldNodes()
    held.keep(1, descriptors(1, 3), "ollama.service")
    for user in range(10):
        flood(held, f"user-{user}.slice", 1000 * (user + 1))
    assert len(list(held)) == OF_ALL
    assert held.keep(1, descriptors(1, 3), "ollama.service"), "looked at anew"
    assert not held.keep(2, descriptors(2, 1), "ollama.service")


def test_room_comes_back_with_the_end_of_who_took_it() -> None:
    held = HeldNodes()
    flood(held, "user-1000.slice", 100)
    for pid in range(100, 200):
        held.drop(pid)
    assert list(held) == []
    assert held.keep(1, descriptors(1, OF_ONE_SHARER), "user-1000.slice")
    held.clear()
    assert held.keep(2, descriptors(2, OF_ONE_SHARER), "user-1000.slice")


def test_the_log_says_it_once_whoever_does_it_and_how_often(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    held = HeldNodes()
    for user in range(4):
        flood(held, f"user-{user}.slice", 1000 * (user + 1))
        held.clear()
    (line,) = caplog.messages
    assert line.startswith("user-0.slice has nodes of GPUs open too often")


@pytest.mark.parametrize(
    ("cgroup", "sharer"),
    [
        ("0::/user.slice/user-1000.slice/session-2.scope", "user-1000.slice"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/blender.service", "user-1000.slice"),
        (
            f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{'a' * 64}.scope",
            "user-1000.slice",
        ),
        ("0::/system.slice/ollama.service/runner/0", "ollama.service"),
        (f"0::/system.slice/docker-{'a' * 64}.scope", f"docker-{'a' * 64}.scope"),
        (f"0::/docker/{'a' * 64}", f"docker {'a' * 12}"),
        ("0::/", "somebody"),
        (None, "somebody"),
    ],
)
def test_who_shares_is_told_by_the_cgroup(cgroup: str | None, sharer: str) -> None:
    assert sharer_of(cgroup) == sharer
