"""What an output is: one way from the daemon to the world."""

from typing import Protocol

from gpuwhyd.model import Report


class Output(Protocol):
    """Gets every report in order. `publish` must not block the event loop, and must not raise for faults of the other
    side (a bus that is away, a journal that stalls): it queues, drops with a count, or catches up later.
    """

    async def publish(self, report: Report) -> None: ...

    async def close(self) -> None: ...
