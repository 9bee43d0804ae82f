"""User names for user ids."""

import pwd
import time
from collections import OrderedDict
from collections.abc import Callable

from gpuwhyd.processes.procfs import printable


class UserNames:
    """Names from the system's user database, remembered: with sssd or LDAP behind it one look-up can take seconds.

    It may block for that long, so it is called from a worker thread. Unknown ids are remembered as well, and everything
    only for `age_seconds`, since accounts are added and renamed.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        lookup: Callable[[int], str] = lambda uid: pwd.getpwuid(uid).pw_name,
        age_seconds: float = 600.0,
        maximum: int = 1024,
    ) -> None:
        self._clock = clock
        self._lookup = lookup
        self._age_seconds = age_seconds
        self._maximum = maximum
        self._known: OrderedDict[int, tuple[str, float]] = OrderedDict()

    def name(self, uid: int) -> str:
        """The user's name, or the number where the database has none (a container's user namespace)."""
        now = self._clock()
        known = self._known.get(uid)
        if known is not None and now - known[1] < self._age_seconds:
            return known[0]
        try:
            name = printable(self._lookup(uid)) or str(uid)
        except KeyError:  # getpwuid's only way to say both "no such user" and "the database does not answer"
            name = str(uid)
        self._known[uid] = (name, now)
        self._known.move_to_end(uid)
        if len(self._known) > self._maximum:
            self._known.popitem(last=False)
        return name
