"""A backend that is imported and made when there is a card for it, and not before."""

from collections.abc import Callable

from gpuwhyd.backends.base import Backend, BackendReadings, Probe, ProbeResult
from gpuwhyd.errors import BackendError, NoCardError
from gpuwhyd.model import FieldSource


class Deferred:
    """See backends/base.py for the contract. Once made, the backend itself is asked for everything."""

    def __init__(self, name: str, *, no_card: Callable[[], str], make: Callable[[], Backend]) -> None:
        """`no_card` says why there is nothing to read, empty when there is something. It looks without waking a card; it may raise BackendError."""
        self.name = name
        self._no_card = no_card
        self._make = make
        self._backend: Backend | None = None

    def absence(self) -> ProbeResult | None:
        """Why there is no backend yet; `None` when there is one, or a card for it.

        It lists the PCI bus, which the kernel has in memory, and so needs neither a thread nor a deadline: most backends
        are never made, and on most machines there are six of them.
        """
        if self._backend is not None:
            return None
        try:
            absent = self._no_card()
        except BackendError as error:
            return ProbeResult(answer=Probe.LATER, message=str(error))
        return ProbeResult(answer=Probe.LATER, message=absent, no_card=True) if absent else None

    def probe(self) -> ProbeResult:
        if (absence := self.absence()) is not None:
            return absence
        if self._backend is None:
            self._backend = self._make()
        return self._backend.probe()

    def read(self) -> BackendReadings:
        if self._backend is None:
            raise NoCardError(f"{self.name} was not probed")
        return self._backend.read()

    def close(self) -> None:
        if self._backend is not None:
            self._backend.close()

    def sources(self) -> tuple[FieldSource, ...]:
        return () if self._backend is None else self._backend.sources()
