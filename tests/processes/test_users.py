import os
import pwd

from gpuwhyd.processes.users import UserNames


class Database:
    """A user database that counts how often it is asked."""

    def __init__(self, **names: str) -> None:
        self.names = {int(uid.removeprefix("u")): name for uid, name in names.items()}
        self.asked: list[int] = []

    def __call__(self, uid: int) -> str:
        self.asked.append(uid)
        return self.names[uid]


def test_the_name_comes_from_the_systems_database():
    assert UserNames().name(0) == "root"
    assert UserNames().name(os.geteuid()) == pwd.getpwuid(os.geteuid()).pw_name


def test_an_unknown_user_is_a_number():
    assert UserNames().name(4294967294) == "4294967294"
    assert UserNames().name(2**32 + 7) == str(2**32 + 7)


def test_a_name_is_asked_for_once_until_it_is_old():
    now = [0.0]
    database = Database(u1000="anna")
    users = UserNames(clock=lambda: now[0], lookup=database, age_seconds=600)

    assert [users.name(1000), users.name(1000), users.name(7), users.name(7)] == ["anna", "anna", "7", "7"]
    assert database.asked == [1000, 7]

    now[0] = 601.0
    database.names = {1000: "anna.b", 7: "new"}
    assert [users.name(1000), users.name(7)] == ["anna.b", "new"]


def test_the_memory_is_bounded():
    database = Database()
    users = UserNames(clock=lambda: 0.0, lookup=database, maximum=3)

    for uid in range(100):
        users.name(uid)
    database.asked.clear()
    for uid in (99, 98, 97, 0):
        users.name(uid)

    assert database.asked == [0]


def test_a_name_cannot_forge_a_line():
    assert UserNames(lookup=lambda _uid: "a\nb").name(5) == "a?b"
