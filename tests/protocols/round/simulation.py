"""Drives many `Round` machines by one event queue: messages late, reordered, doubled and lost, members killed.

The data plane is modelled by what a part is made of: the owner's result is a digest of the part and of those who sent
to it. A killed member stops at once, in the middle of its actions; whether the others are told (`Lost`) is chosen.
A frozen one does nothing for a while; when it wakes up its timers come first, and what was sent long ago is lost.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from protocols.encoding import digest, encode
from protocols.identity import Identity, PeerId
from protocols.round.claims import Claim, claim_of
from protocols.round.deadlines import Timing
from protocols.round.events import (
    Action,
    Apply,
    Decided,
    Event,
    Exchange,
    Fetch,
    FetchFailed,
    FinishUpdate,
    Heard,
    Lost,
    PartBroken,
    PartHeld,
    PartObserved,
    Redirect,
    Relay,
    Resync,
    Send,
    Tick,
    Trained,
    UpdateReady,
    Weighed,
)
from protocols.round.machine import Phase, Round
from protocols.round.messages import Begin, Observed, PartResult, Ready, Weigh, begin_digest
from protocols.round.setting import Setting
from protocols.round.weighing import everywhere
from protocols.signed import Signed

RUN = "simulated-aaaaaaaaaaaaaaaaaaaaaaaaaa"
BASE = digest(b"base")
TIMING = Timing()
REQUEST_SECONDS = 5.0
"""A message that is not taken for so long is lost."""
STALL_SECONDS = 1.5 * TIMING.failure
"""Who gets nothing from an owner for so long gives it up."""
PEERS = [Identity.from_seed(bytes([number]) * 32).peer_id for number in range(1, 161)]


@dataclass(frozen=True)
class Weather:
    """What the network does to messages."""

    longest_delay: float = 0.05
    loss: float = 0.0
    doubling: float = 0.0
    broken_streams: float = 0.0
    told: bool = True
    """Whether a dial to the dead fails at once, or just stays without answer."""


@dataclass
class Node:
    peer: PeerId
    machine: Round
    alive: bool = True
    wakes_at: float = 0.0
    """Frozen until then."""
    withholds: bool = False
    """Whether it keeps the results of its parts to itself."""
    mute: bool = False
    """Whether it says nothing, though it listens."""
    results_late_seconds: float = 0.0
    """So much later do the owners' results reach it."""
    samples: int = 0
    begin: Begin | None = None
    term: int = -1
    gathered: dict[tuple[int, int, int], set[PeerId]] = field(default_factory=dict)
    """(term, part, attempt) that it reduces → who has sent."""
    reduced: dict[tuple[int, int, int], PartResult] = field(default_factory=dict)
    readers: dict[tuple[int, int, int], set[PeerId]] = field(default_factory=dict)
    observed: set[tuple[int, int, int]] = field(default_factory=set)
    weighed: dict[int, tuple[Observed, ...]] = field(default_factory=dict)
    """By term: what the owners have observed."""
    content: set[PartResult] = field(default_factory=set)
    outcome: tuple[PartResult, ...] | None = None
    resynced: bool = False
    finished_after: float | None = None


class Swarm:
    def __init__(
        self,
        seed: int,
        count: int,
        weather: Weather | None = None,
        target: int | None = 100,
        client_modes: int = 0,
        *,
        epoch: int = 7,
        base: bytes = BASE,
        electorate: Iterable[PeerId] | None = None,
        group_limit: int = 64,
        weighs: bool = False,
        chunks: int = 16,
        views: Callable[[PeerId], dict[str, Any]] = lambda _peer: {},
        quorum: int = 1,
    ) -> None:
        """`views`: what of the `Setting` is each member's own; `electorate` there is that of its `Round`."""
        self.views, self.quorum = views, quorum
        self.weighs, self.chunks = weighs, chunks
        self.made_of: dict[PartResult, list[PeerId]] = {}
        self.epoch, self.base = epoch, base
        self.electorate, self.group_limit = electorate, group_limit
        self.random = random.Random(seed)
        self.weather = weather or Weather()
        self.now = 0.0
        self._awaited: dict[tuple[PeerId, Phase], list[Callable[[], None]]] = {}
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._sequence = itertools.count(1)
        self._said: dict[bytes, Signed] = {}
        """All statements, by what stands for their wire bytes."""
        peers = PEERS[:count]
        expected = {peer: number >= count - client_modes for number, peer in enumerate(peers)}
        self.nodes = {peer: Node(peer, self._machine(peer, expected, target)) for peer in peers}
        for node in self.nodes.values():
            self.after(self.random.uniform(0, 0.2), lambda node=node: self._train(node))
            self.after(self.random.uniform(0, 0.2), lambda node=node: self._tick(node))

    def _machine(self, peer: PeerId, expected: dict[PeerId, bool], target: int | None) -> Round:
        views = dict(self.views(peer))
        electorate = views.pop("electorate", self.electorate)
        setting = Setting(
            run=RUN,
            epoch=self.epoch,
            base=self.base,
            me=peer,
            target_samples=target,
            chunks=self.chunks,
            client_mode=expected[peer],
            group_limit=self.group_limit,
            weighs=self.weighs,
            quorum=self.quorum,
            **views,
        )
        return Round(setting, expected, 0.0, electorate=electorate)

    # -- time ---------------------------------------------------------------------------------------------------------

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + seconds, next(self._number), call))

    def when(self, node: Node, phase: Phase, call: Callable[[], None]) -> None:
        """Once, as soon as `node` has come to `phase`: before it does any of what it decided there."""
        if node.machine.phase is phase:
            call()
        else:
            self._awaited.setdefault((node.peer, phase), []).append(call)

    def run(self, limit_seconds: float) -> None:
        """Until every survivor is through, or for `limit_seconds` of virtual time."""
        while self._queue and self._queue[0][0] <= limit_seconds:
            self.now, _, call = heapq.heappop(self._queue)
            call()
            if all(node.machine.phase in (Phase.APPLIED, Phase.LOST) for node in self.survivors):
                return

    @property
    def survivors(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.alive]

    def kill(self, node: Node) -> None:
        node.alive = False
        for other in self.survivors:
            for key, senders in other.gathered.items():
                if node.peer not in senders:
                    self.after(self.random.uniform(0, 0.5), lambda o=other, k=key: self._reduce(o, k))
            if other.begin is not None:
                for number in range(len(other.begin.parts)):
                    ledger = other.machine._terms.following.ledger
                    attempt, owner = ledger.owners[number] if ledger else (0, None)
                    if owner == node.peer:
                        broken = PartBroken(other.term, number, attempt)
                        wait = self.random.uniform(0, 0.5) if self.weather.told else TIMING.failure
                        self.after(wait, lambda o=other, b=broken: self.event(o, b))

    def freeze(self, node: Node, seconds: float) -> None:
        node.wakes_at = self.now + seconds
        self.after(seconds, lambda: self.event(node, Tick()))

    def _asleep(self, node: Node, call: Callable[[], None]) -> bool:
        """Whether `node` is frozen; `call` is then put off until it wakes up and gets round to it."""
        if self.now < node.wakes_at:
            self.after(node.wakes_at - self.now + self._delay(), call)
        return self.now < node.wakes_at

    # -- one node -----------------------------------------------------------------------------------------------------

    def event(self, node: Node, event: Event) -> None:
        if not node.alive or self._asleep(node, lambda: self.event(node, event)):
            return
        before = node.machine.phase
        for action in node.machine.handle(event, self.now):
            if node.machine.phase is not before:
                before = node.machine.phase
                for call in self._awaited.pop((node.peer, before), []):
                    call()
            if not node.alive:  # killed in the middle of its actions
                return
            self._act(node, action)

    def _tick(self, node: Node) -> None:
        if node.alive and not self._asleep(node, lambda: self._tick(node)):
            self.event(node, Tick())
            self.after(0.2, lambda: self._tick(node))

    def _train(self, node: Node) -> None:
        if self._asleep(node, lambda: self._train(node)):
            return
        if node.alive and node.machine.phase is Phase.GATHERING:
            node.samples += 5
            complete = node.machine.setting.target_samples is None and node.samples >= 40
            self.event(node, Trained(node.samples, complete, 50.0))
            self.after(self.random.uniform(0.02, 0.2), lambda: self._train(node))

    def _act(self, node: Node, action: Action) -> None:
        match action:
            case Send(to, body):
                number = next(self._sequence)
                wire = encode([node.peer, number])
                self._said[wire] = Signed(RUN, node.peer, self.epoch, number, body, wire)
                self._transmit(node, to, self._said[wire])
            case Relay(to, statement):
                self._transmit(node, to, statement)
            case FinishUpdate():
                ready = UpdateReady(digest(node.peer.encode()), max(node.samples, 5))
                self.after(self.random.uniform(0, 0.05), lambda: self.event(node, ready))
            case Exchange(begin, term):
                node.begin, node.term = begin, term
                for number, part in enumerate(begin.parts):
                    self._stream(node, number, 0, part.owner)
            case Redirect(part, attempt, owner):
                self._stream(node, part, attempt, owner)
            case Weighed(term, observed):
                node.weighed[term] = tuple(statement.body for statement in observed)
                for key in sorted(node.observed):
                    self._reduce(node, key, late=True)
            case Fetch():
                self._fetch(node, action)
            case Apply(results):
                assert set(results) <= node.content
                node.outcome, node.finished_after = results, self.now
            case Resync():
                node.resynced = True
            case Decided():
                pass

    def _transmit(self, node: Node, to: PeerId, statement: Signed) -> None:
        target = self.nodes[to]
        if node.mute and target is not node:
            return
        if target is node:
            self.after(0, lambda: self.event(target, self._heard(statement)))
            return
        if not target.alive:
            if self.weather.told:
                self.after(self._delay(), lambda: self.event(node, Lost(to)))
            return
        for _ in range(2 if self.random.random() < self.weather.doubling else 1):
            if self.random.random() >= self.weather.loss:
                self.after(self._delay(), lambda: self._deliver(target, statement))

    def _deliver(self, target: Node, statement: Signed) -> None:
        if target.wakes_at - self.now < REQUEST_SECONDS:
            self.event(target, self._heard(statement))

    def _heard(self, statement: Signed) -> Heard:
        observed = statement.body.observed if isinstance(statement.body, Weigh) else ()
        return Heard(statement, claim=self._claim(statement), observed=tuple(self._said[wire] for wire in observed))

    def _claim(self, statement: Signed) -> Claim | None:
        match statement.body:
            case Ready(origin=(begin, *reassigned)):
                return claim_of(statement, self._said[begin], [self._said[wire] for wire in reassigned])
            case Begin(proof=(proof,)):
                return self._claim(self._said[proof])
        return None

    def _delay(self) -> float:
        return self.random.uniform(0.001, self.weather.longest_delay)

    # -- the data plane -----------------------------------------------------------------------------------------------

    def _stream(self, node: Node, part: int, attempt: int, owner: PeerId) -> None:
        key = (node.term, part, attempt)
        target = self.nodes[owner]
        broken = PartBroken(node.term, part, attempt)
        if not target.alive or self.random.random() < self.weather.broken_streams:
            wait = self._delay() if self.weather.told else TIMING.failure
            self.after(wait, lambda: self.event(node, broken))
            return
        self.after(self._delay(), lambda: self._arrive(target, node.peer, key))
        self.after(STALL_SECONDS, lambda: self.event(node, broken))

    def _arrive(self, owner: Node, sender: PeerId, key: tuple[int, int, int]) -> None:
        if not owner.alive or self._asleep(owner, lambda: self._arrive(owner, sender, key)):
            return
        fresh = key not in owner.gathered
        owner.gathered.setdefault(key, set()).add(sender)
        owner.readers.setdefault(key, set()).add(sender)
        if fresh:
            self.after(TIMING.straggler, lambda: self._reduce(owner, key, late=True))
        if key in owner.reduced:
            self._send_result(owner, sender, key)
        else:
            self._reduce(owner, key)

    def _reduce(self, owner: Node, key: tuple[int, int, int], late: bool = False) -> None:
        if self._asleep(owner, lambda: self._reduce(owner, key, late)):
            return
        if not owner.alive or owner.begin is None or owner.term != key[0] or key in owner.reduced:
            return
        awaited = {m.peer for m in owner.begin.members if self.nodes[m.peer].alive or late}
        if not late and not awaited <= owner.gathered[key]:
            return
        part = owner.begin.parts[key[1]]
        made_of = sorted(owner.gathered[key])
        if self.weighs and (made_of := self._weigh(owner, key)) is None:
            return
        owner.reduced[key] = PartResult(
            start=part.start, stop=part.stop, digest=digest(encode([part.start, part.stop, made_of]))
        )
        self.made_of[owner.reduced[key]] = made_of
        for reader in sorted(owner.readers[key]):
            self._send_result(owner, reader, key)

    def _weigh(self, owner: Node, key: tuple[int, int, int]) -> list[PeerId] | None:
        """Whom the part is made of; None as long as that is not known, or when they are not all there."""
        assert owner.begin is not None
        term, part, attempt = key
        members = [member.peer for member in owner.begin.members]
        if key not in owner.observed:
            owner.observed.add(key)
            included = sum(1 << members.index(peer) for peer in owner.gathered[key])
            gram = bytes(4 * (len(owner.gathered[key]) + 1) * (len(owner.gathered[key]) + 2))
            observed = Observed(
                term=term, part=part, attempt=attempt, begin=begin_digest(owner.begin), included=included, gram=gram
            )
            self.after(0, lambda: self.event(owner, PartObserved(observed)))
        if term not in owner.weighed:
            return None
        chosen = [members[number] for number in everywhere(owner.weighed[term])]
        if chosen and owner.gathered[key].issuperset(chosen):
            return sorted(chosen)
        self.after(0, lambda: self.event(owner, PartBroken(term, part, attempt)))
        return None

    def _send_result(self, owner: Node, reader: PeerId, key: tuple[int, int, int]) -> None:
        result, target = owner.reduced[key], self.nodes[reader]
        if owner.withholds and target is not owner:
            return

        def arrive() -> None:
            if target.alive and owner.alive:
                target.content.add(result)
                self.event(target, PartHeld(result, key[0], key[2]))

        late = 0.0 if target is owner else target.results_late_seconds
        self.after(self._delay() + late, arrive)

    def _fetch(self, node: Node, wanted: Fetch) -> None:
        result = wanted.result

        def arrive() -> None:
            able = [self.nodes[h] for h in wanted.holders if self.nodes[h].alive and self.now >= self.nodes[h].wakes_at]
            if any(result in holder.content for holder in able):
                node.content.add(result)
                self.event(node, PartHeld(result))
            else:
                self.event(node, FetchFailed(result, wanted.term))

        self.after(self._delay(), arrive)
