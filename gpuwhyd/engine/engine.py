"""The engine: snapshots in, events and explanations out. It has no clock and does no I/O; time is in the snapshot."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gpuwhyd.engine.card import Card, Outcome, restored_card
from gpuwhyd.engine.cpu_heat import CpuHeat
from gpuwhyd.engine.neighbours import CPU, Neighbour
from gpuwhyd.engine.rules import Firing
from gpuwhyd.engine.saved import table
from gpuwhyd.engine.sentences import ADVICE_COOLER, headline
from gpuwhyd.engine.settings import EngineSettings
from gpuwhyd.engine.shared_heat import (
    Cooler,
    SharedGpu,
    cools_the_machine,
    has_a_fan_of_the_machine,
    is_part_of_the_cpu,
)
from gpuwhyd.model import (
    CHASSIS,
    AlertEvent,
    BackendEvent,
    BackendHealth,
    BackendState,
    Event,
    EventKind,
    Explanation,
    GpuEvent,
    GpuIdentity,
    GpuReading,
    GpuState,
    GpuUse,
    Report,
    Snapshot,
    Spike,
    SpikeEvent,
)

REMOVED_SECONDS = 30.0
"""A card that its backend, which has looked, does not list for so long was removed.

However sure it is that the card is not there: the reload of a driver takes some seconds, a cable is put back, a virtual
machine's card is bound again, and none of that is worth a removal, the end of a spike, and learning anew.
"""
MOST_REMEMBERED_CARDS = 32
"""Of those that are not plugged in, the ones that went last."""


class Engine:
    """Feed it every snapshot in order. `explanations` and `headline` answer at any time after the first."""

    def __init__(
        self, settings: EngineSettings, saved: Mapping[str, object] | None = None, *, boot_id: str = ""
    ) -> None:
        """`saved`: what `saved()` gave in an earlier run; `boot_id` tells whether that was before a reboot.

        Raises TypeError, ValueError or KeyError when `saved` is broken: start without it then.
        """
        self._settings = settings
        self._boot_id = boot_id
        self._cards: dict[str, Card] = {}
        self._dormant: dict[str, Card] = {}
        """Not plugged in now, or not seen yet since the start; what was learned of them is kept."""
        self._removed: set[str] = set()
        self._interrupted_spikes: list[Card] = []
        """Open at a reboot; closed, and so told, with the first snapshot."""
        self._saved_boot_id: object = boot_id
        self._failing: set[str] = set()
        self._cpu = CpuHeat()
        self._has_fed = False
        if saved:
            self._take_over(saved)

    def reconfigure(self, settings: EngineSettings) -> None:
        """Takes other settings from the next snapshot on; open spikes and what was learned stay."""
        self._settings = settings

    @property
    def explanations(self) -> dict[str, Explanation]:
        """Of every card; they are worked out now, as of the last snapshot."""
        told = ((card_id, card.explanation) for card_id, card in self._cards.items())
        return {card_id: explanation for card_id, explanation in told if explanation is not None}

    @property
    def headline(self) -> str:
        return headline(tuple(self.explanations.values()))

    @property
    def a_fan_moves(self) -> bool:
        """Whether any fan rises, or is up and has not found its speed: time to look more often."""
        return any(card.fan_is_moving for card in self._cards.values())

    def feed(self, snapshot: Snapshot) -> Report:
        """One snapshot -> its report."""
        events, explanations = self.follow(snapshot), self.explanations
        return Report(
            snapshot=self._with_missing(snapshot),
            events=events,
            explanations=explanations,
            headline=headline(tuple(explanations.values())),
        )

    def follow(self, snapshot: Snapshot) -> tuple[Event, ...]:
        """One snapshot -> its events alone: for those who do not ask for an answer at every moment."""
        events: list[Event] = []
        events += self._close_after_reboot(snapshot)
        events += self._backend_events(snapshot)
        uses = _by_gpu(snapshot)
        self._cpu.feed(snapshot)
        neighbours = self._neighbours()
        shared: list[SharedGpu] = []
        # what heats a fan of the machine is known when all else has been read
        for reading in sorted(snapshot.readings, key=cools_the_machine):
            card, new = self._cards.get(reading.gpu.id), False
            if card is not None and _is_another(card.known.gpu, reading.gpu):
                events += self._remove(snapshot, card)
                card = None
            if card is None:
                card, new = self._meet(reading.gpu)
                if new:
                    events.append(
                        _gpu_event(EventKind.GPU_ADDED, snapshot, reading.gpu, f"{card.known.label}: found.")
                    )
            if reading.state is GpuState.LOST and card.state is not GpuState.LOST and card.was_read:
                sentence = f"{card.known.label}: lost; it fell off the bus or needs a reset. See the kernel log (dmesg)."
                events.append(_gpu_event(EventKind.GPU_LOST, snapshot, reading.gpu, sentence))
            own = uses.get(reading.gpu.id, ())
            cooler = self._cooler(reading, shared)
            outcome = card.feed(
                snapshot,
                reading,
                own,
                snapshot.exits,
                self._settings,
                cooler,
                () if cooler is not None else neighbours,
                is_new=new and self._has_fed,
            )
            if not card.known.has_fan and not is_part_of_the_cpu(reading):
                shared.append(SharedGpu(heat=card.known.heat, reading=reading))
            events += _events_of(snapshot, card, outcome)
        events += self._follow_missing(snapshot)
        self._has_fed = True
        return tuple(events)

    def _neighbours(self) -> list[Neighbour]:
        """All that heats in this machine; empty where a card is alone. A fan of the machine heats nothing."""
        if len(self._cards) + self._cpu.is_known < 2:
            return []
        found = [
            Neighbour(label=card.known.label, heat=card.known.heat)
            for card in self._cards.values()
            if card.known.gpu.vendor != CHASSIS
        ]
        if self._cpu.is_known:
            found.append(Neighbour(label=CPU, heat=self._cpu.heat))
        return found

    def _cooler(self, reading: GpuReading, shared: Sequence[SharedGpu]) -> Cooler | None:
        if cools_the_machine(reading):
            return Cooler(cpu=self._cpu, gpus=tuple(shared))
        return Cooler(cpu=self._cpu) if has_a_fan_of_the_machine(reading) else None

    def saved(self) -> dict[str, object]:
        """Everything worth keeping over a restart, as JSON takes it."""
        cards = {**self._dormant, **self._cards}
        kept = list(cards.items())[-MOST_REMEMBERED_CARDS:]
        boot_id = self._saved_boot_id if self._interrupted_spikes else self._boot_id
        return {
            "boot_id": boot_id,
            "cards": {card_id: card.saved() for card_id, card in kept},
            "cpu": self._cpu.saved(),
        }

    # -- cards come and go ----------------------------------------------------------------------------------------

    def _take_over(self, saved: Mapping[str, object]) -> None:
        self._saved_boot_id = saved["boot_id"]
        same_boot = self._saved_boot_id == self._boot_id
        if "cpu" in saved:
            self._cpu = CpuHeat.restored(table(saved["cpu"]), same_boot=same_boot)
        for card_id, item in table(saved["cards"]).items():
            card = restored_card(item, same_boot=same_boot)
            if same_boot and card.open_spike is not None:
                self._cards[card_id] = card  # if it was pulled out meanwhile, its spike has ended by that
                continue
            self._dormant[card_id] = card
            if card.open_spike is not None:
                self._interrupted_spikes.append(card)

    def _meet(self, gpu: GpuIdentity) -> tuple[Card, bool]:
        """The card of this GPU, and whether that is worth telling: not after a restart of the daemon."""
        remembered = self._dormant.pop(gpu.id, None)
        if remembered is not None and _is_another(remembered.known.gpu, gpu):
            remembered = None
        card = remembered or Card(gpu)
        new = remembered is None or gpu.id in self._removed
        self._removed.discard(gpu.id)
        self._cards[gpu.id] = card
        self._label()
        return card, new

    def _label(self) -> None:
        """Cards are numbered in the order of their PCI addresses, as the vendors' tools do. Fans of the machine are not."""
        cards = []
        for card in self._cards.values():
            if card.known.gpu.vendor == CHASSIS:
                name = card.known.gpu.name
                card.known.label = name if "fan" in name.lower() else f"{name} fan"
            else:
                cards.append(card)
        cards.sort(key=lambda c: c.known.gpu.pci_address or c.known.gpu.id)
        for number, card in enumerate(cards):
            card.known.label = f"GPU {number} ({_short(card.known.gpu.name)})"

    def _follow_missing(self, snapshot: Snapshot) -> list[Event]:
        present = {reading.gpu.id for reading in snapshot.readings}
        absent = [card_id for card_id in self._cards if card_id not in present]
        if not absent:
            return []
        looked = {health.name for health in snapshot.backends if _has_looked(health)}
        events: list[Event] = []
        for card_id in absent:
            card = self._cards[card_id]
            if snapshot.resumed or card.backend not in looked:
                card.missing_since = None
            card.missing(snapshot)
            if card.missing_since is None or snapshot.boottime_seconds - card.missing_since < REMOVED_SECONDS:
                continue
            events += self._remove(snapshot, card)
        return events

    def _remove(self, snapshot: Snapshot, card: Card) -> list[Event]:
        events: list[Event] = []
        if (spike := card.vanish(snapshot, "removed")) is not None:
            events += _spike_ended(snapshot, card, spike)
        events += [_alert(snapshot, card, firing) for firing in card.end_alerts()]
        sentence = f"{card.known.label}: removed, or taken from its driver."
        events.append(_gpu_event(EventKind.GPU_REMOVED, snapshot, card.known.gpu, sentence))
        card_id = card.known.gpu.id
        self._dormant[card_id] = self._cards.pop(card_id)
        card.gone()
        self._removed.add(card_id)
        while len(self._dormant) > MOST_REMEMBERED_CARDS:
            forgotten = next(iter(self._dormant))
            del self._dormant[forgotten]
            self._removed.discard(forgotten)
        self._label()
        return events

    def _with_missing(self, snapshot: Snapshot) -> Snapshot:
        """Cards that cannot be read now have not gone: outputs see them in state `unknown`, without values."""
        present = {reading.gpu.id for reading in snapshot.readings}
        missing = tuple(
            GpuReading(gpu=card.known.gpu, backend=card.backend, state=GpuState.UNKNOWN)
            for card_id, card in self._cards.items()
            if card_id not in present
        )
        return replace(snapshot, readings=snapshot.readings + missing) if missing else snapshot

    def _close_after_reboot(self, snapshot: Snapshot) -> list[Event]:
        """A spike that was open when the machine went down is closed once."""
        interrupted, self._interrupted_spikes = self._interrupted_spikes, []
        events: list[Event] = []
        for card in interrupted:
            if (spike := card.vanish(snapshot, "reboot")) is not None:
                events += _spike_ended(snapshot, card, spike)
        return events

    def _backend_events(self, snapshot: Snapshot) -> list[Event]:
        events: list[Event] = []
        for health in snapshot.backends:
            failing = health.state is BackendState.FAILING
            if failing == (health.name in self._failing):
                continue
            if failing:
                self._failing.add(health.name)
                kind, sentence = EventKind.BACKEND_FAILING, f"{health.name} fails: {health.message}"
            elif health.state in {BackendState.READY, BackendState.ASLEEP}:
                self._failing.discard(health.name)
                kind, sentence = EventKind.BACKEND_RECOVERED, f"{health.name} works again."
            else:
                continue
            events.append(
                BackendEvent(
                    kind=kind,
                    wall_usec=snapshot.wall_usec,
                    boottime_seconds=snapshot.boottime_seconds,
                    backend=health.name,
                    sentence=sentence,
                )
            )
        return events


def _by_gpu(snapshot: Snapshot) -> dict[str, Sequence[GpuUse]]:
    if len(snapshot.readings) == 1:  # most machines
        own = snapshot.readings[0].gpu.id
        return {own: [use for use in snapshot.uses if use.gpu_id == own]}
    uses: dict[str, list[GpuUse]] = {}
    for use in snapshot.uses:
        uses.setdefault(use.gpu_id, []).append(use)
    return dict(uses)


def _has_looked(health: BackendHealth) -> bool:
    """Whether it is sure of which cards there are: it lists them also while all of them sleep."""
    return health.state in {BackendState.READY, BackendState.ASLEEP} or health.has_no_card


def _is_another(known: GpuIdentity, told: GpuIdentity) -> bool:
    """Another card at the same PCI address, as far as both are known. What was learned of the one is not true of it.

    Names do not tell: a sleeping card's is a guess, and each driver has its own.
    """
    pairs = ((known.uuid, told.uuid), (known.pci_id, told.pci_id))
    return any(one is not None and other is not None and one != other for one, other in pairs)


def _short(name: str) -> str:
    """`NVIDIA GeForce RTX 3070` -> `RTX 3070`: what people call their card."""
    for prefix in ("NVIDIA ", "GeForce ", "AMD ", "Radeon ", "Intel "):
        name = name.removeprefix(prefix)
    return name


def _gpu_event(kind: EventKind, snapshot: Snapshot, gpu: GpuIdentity, sentence: str) -> GpuEvent:
    return GpuEvent(
        kind=kind,
        wall_usec=snapshot.wall_usec,
        boottime_seconds=snapshot.boottime_seconds,
        gpu=gpu,
        sentence=sentence,
    )


def _events_of(snapshot: Snapshot, card: Card, outcome: Outcome) -> list[Event]:
    events: list[Event] = []
    if outcome.spike_kind is EventKind.SPIKE_ENDED and outcome.spike is not None:
        events += _spike_ended(snapshot, card, outcome.spike)
    elif outcome.spike_kind is not None and outcome.spike is not None and (explanation := card.explanation):
        events.append(_spike_event(outcome.spike_kind, snapshot, card, outcome.spike, explanation))
    return events + [_alert(snapshot, card, firing) for firing in outcome.firings]


def _spike_ended(snapshot: Snapshot, card: Card, spike: Spike) -> list[Event]:
    told = card.told_at_the_end(spike)
    return [] if told is None else [_spike_event(EventKind.SPIKE_ENDED, snapshot, card, spike, told)]


def _spike_event(
    kind: EventKind, snapshot: Snapshot, card: Card, spike: Spike, explanation: Explanation
) -> SpikeEvent:
    return SpikeEvent(
        kind=kind,
        wall_usec=snapshot.wall_usec,
        boottime_seconds=snapshot.boottime_seconds,
        gpu=card.known.gpu,
        spike=spike,
        explanation=explanation,
    )


def _alert(snapshot: Snapshot, card: Card, firing: Firing) -> AlertEvent:
    explanation = card.explanation
    if explanation is None:
        raise ValueError("an alert needs an explanation")
    rule = firing.rule
    above = rule.above is not None
    threshold = (rule.above if above else rule.below) or 0.0
    side = "above" if above else "below"
    if firing.kind is EventKind.ALERT_RAISED:
        held = f" for {round(firing.for_seconds)} s" if firing.for_seconds >= 1 else ""
        meaning = f" {ADVICE_COOLER}." if rule.metric == "cooling_loss_percent" else ""
        sentence = f"{card.known.label}: {rule.name}: {rule.metric} is {firing.value:g}, {side} {threshold:g}{held}.{meaning}"
    elif firing.reason is not None:
        sentence = f"{card.known.label}: {rule.name} is over: {firing.reason}."
    else:
        sentence = f"{card.known.label}: {rule.name} is over: {rule.metric} is back at {firing.value:g}."
    return AlertEvent(
        kind=firing.kind,
        wall_usec=snapshot.wall_usec,
        boottime_seconds=snapshot.boottime_seconds,
        gpu=card.known.gpu,
        rule=rule.name,
        severity=rule.severity,
        metric=rule.metric,
        value=firing.value,
        threshold=threshold,
        for_seconds=firing.for_seconds,
        explanation=explanation,
        sentence=sentence,
    )
