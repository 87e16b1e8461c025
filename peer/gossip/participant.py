"""One member of a run without groups: joins, trains at its own pace, and mixes its model with neighbours' meanwhile.

preparing a member without its data: what it needs to train may have to be fetched from the others
joining   finds the members, takes the state of one that is as far as most, or goes on from its own
training  epoch after epoch; beside that, exchanges with the neighbours of the epoch (`peer.gossip.mixer`)
paused    the organiser has said so
merging   the run's last epoch: all models become one (`peer.gossip.merging`)
idle      the last epoch is reached: serves what others need

Nobody waits for anybody: training goes on during an exchange, and one that fails or takes too long is one that was not.
Only the merge waits for those who are nearly there, and only for a while.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any

import structlog

from dht.border import Border
from dht.interfaces import Records, Transport
from peer.company import Company
from peer.contents import ContentStore
from peer.description import Description
from peer.directives import Directives
from peer.epoch_pace import EpochPace
from peer.gossip.committee_member import CommitteeMember
from peer.gossip.committees import Committees
from peer.gossip.consensus import ConsensusDistance
from peer.gossip.exchanges import Counts, Exchanges, Terms
from peer.gossip.joining import Joining
from peer.gossip.learner import GossipLearner
from peer.gossip.merging import Merging
from peer.gossip.mixer import Mixer
from peer.gossip.own_model import OwnModel
from peer.gossip.trainers import Trainers
from peer.learner import IdleLearner
from peer.member import Activity
from peer.membership import Membership
from peer.profile import Profile
from peer.rejections import Rejections
from peer.roster import MAX_MEMBERS
from peer.signal import Signal
from peer.status import GossipStatus
from peer.sync import HEAD_KIND, Heads
from peer.tasks import beside
from protocols.codecs import codec
from protocols.gossip.mixing import neighbourhood_of
from protocols.gossip.progress import SampleRate
from protocols.gossip.topologies import topology_of
from protocols.heads import HISTORY
from protocols.identity import PeerId
from protocols.manifest import Gossip, Manifest
from protocols.records import RosterEntry
from protocols.signed import Signer
from protocols.state import ModelState
from protocols.vectors import Vector

CONTACTS = 4
"""Members with whom we keep in touch at a time. Of the rest it is enough to know that they are there."""
LEAVE_SECONDS = 5.0
"""So long exchanges that are under way may still take when training ends."""

LAST_STATES_SECONDS = 3.0
"""Until all have heard who holds the states of a run's last round."""

log = structlog.get_logger()


class GossipParticipant:
    """Implements `peer.member.Member`, and `peer.gossip.exchanges.Host`."""

    last_round = None
    round_phase = None
    suspended: Mapping[PeerId, int] = {}

    def __init__(
        self,
        *,
        transport: Transport,
        records: Records,
        signer: Signer,
        manifest: Manifest,
        profile: Profile,
        state: ModelState,
        learner: GossipLearner | IdleLearner,
        rejections: Rejections,
        prepare: Callable[[], Awaitable[GossipLearner]] | None = None,
        directives: Iterable[bytes] = (),
    ) -> None:
        """`state`: where to start when nobody else is there (the initial one, or a snapshot of ours).

        `learner`: idle of a member that does not train, or as long as `prepare`, which makes the one that takes its
        place, needs the others. `directives`: what was known of the organiser's at the last start, signed.
        `rejections`: what `transport` counts with.
        """
        assert isinstance(manifest.training, Gossip)
        self.manifest, self.profile, self.rejections = manifest, profile, rejections
        self.phase: Activity = "joining"
        self.consensus = ConsensusDistance()
        self.changed = Signal()
        self._transport, self._prepare = transport, prepare
        self._border = Border(transport.peer_id, transport.clock, rejections)
        self.company = Company(
            transport,
            records,
            signer,
            manifest,
            self._border,
            entry=self._entry,
            on_word=self._spoke,
            on_left=self._gone,
            on_lost=self._gone,
            on_directed=self.changed.notify,
            on_banned=self.leave,
            directives=directives,
            contacts=None if manifest.training.committee else CONTACTS,
        )
        training, mix = manifest.training, neighbourhood_of(manifest)
        self._heads = Heads(transport, signer, self._border)
        self._own = OwnModel(transport, training, state, learner, self._heads, self.changed)
        self._joining = Joining(transport, self._heads, self.membership, manifest.averaging.byzantine)
        self._merging = Merging(transport, manifest, self._heads, self.membership, profile, mix)
        self._others = Trainers(transport.peer_id, client_mode=profile.client_mode, end=self._merging.epoch)
        self.exchanges = Exchanges(
            self, transport, signer, self._terms(training, asks=mix is not None), self.company.admission, self._border
        )
        self._mixer = Mixer(
            self,
            self.exchanges,
            transport,
            self._border,
            manifest.run_id,
            topology_of(training),
            self._others,
            mix,
            fewest=2 * manifest.averaging.byzantine + 1,
        )
        self._committees = self._make_committees(training, signer)
        self._rate = SampleRate()
        self._description = Description(profile, self.company)
        self._pace = EpochPace(transport.clock.monotonic())
        self._leaving = asyncio.Event()

    def _terms(self, training: Gossip, *, asks: bool) -> Terms:
        return Terms(
            run=self.manifest.run_id,
            elements=self.state.parameter_count,
            codec=codec(self.manifest.averaging.codec),
            degree=training.neighbours,
            most_samples=training.most_samples,
            only_asks=asks,
        )

    def _make_committees(self, training: Gossip, signer: Signer) -> Committees | None:
        if training.committee is None:
            return None
        return Committees(
            CommitteeMember(self._transport.peer_id, self.manifest, self._own, self.membership, self.directives),
            self._transport,
            signer,
            training.committee,
            self.manifest.epochs,
            training.most_samples,
            codec(self.manifest.averaging.codec),
            self.company.admission,
            self._border,
        )

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """From now on others are answered."""
        await self.company.start()
        await self._transport.serve_requests(HEAD_KIND, self._heads.answer)
        await self.contents.serve(self._transport)
        if self._committees is not None:
            await self._committees.start()
        else:
            await self.exchanges.start()

    async def run(self, max_epochs: int | None = None) -> None:
        """Takes part until `leave`, or for `max_epochs` epochs; then departs in order."""
        async with self.company.kept(), beside(self.exchanges.doubts.run()):
            await self._take_part(max_epochs)
            self._enter("stopping")
            await self.membership.depart()

    def leave(self) -> None:
        """Finish the epoch, then depart."""
        self._leaving.set()
        self.changed.notify()

    def queues(self) -> Iterator[tuple[str, int, int]]:
        """What it keeps of others: what it is, how many, and how many at most."""
        yield "members", len(self.membership.roster), MAX_MEMBERS
        yield "trainers", len(self._others), MAX_MEMBERS
        yield "epochs of history", len(self._heads.history), HISTORY
        yield from self.exchanges.queues()

    async def _take_part(self, max_epochs: int | None) -> None:
        if self._prepare is not None:
            await self._unless_leaving(self._get_ready(self._prepare))
        if self.profile.role != "trainer":
            self._enter("idle")
            await self._leaving.wait()
        while not self._leaving.is_set():
            if not self.joined:
                async with self._border.around("taking a state"):
                    await self._unless_leaving(self._join())
            elif self._played(max_epochs):
                return
            elif self._committees is not None and not self.finished:
                await self._unless_leaving(self._take_turns(self._committees))
            elif self.epoch < self._merging.epoch:
                await self._train(max_epochs)
            elif not self.finished:
                await self._unless_leaving(self._merge())
            else:
                await self._own.evaluate()
                self._enter("idle")
                await self._unless_leaving(self._stay())

    async def _get_ready(self, prepare: Callable[[], Awaitable[GossipLearner]]) -> None:
        self._own.learner = await prepare()

    async def _unless_leaving(self, work: Coroutine[Any, Any, None]) -> None:
        """Until it is done, or we leave."""
        async with beside(self._leaving.wait()) as leaving, asyncio.TaskGroup() as tasks:
            working = tasks.create_task(work)
            await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
            working.cancel()

    def _enter(self, phase: Activity) -> None:
        self.phase = phase
        self.changed.notify()

    def _played(self, max_epochs: int | None) -> bool:
        return max_epochs is not None and self.epochs_played >= max_epochs

    # -- joining ------------------------------------------------------------------------------------------------------

    async def _join(self) -> None:
        """Takes the state of members that are as far as most; ours, when we have one that is nearly as far."""
        self._enter("syncing")
        await self.membership.introduce()
        await self.directives.catch_up()
        await self._own.begin(await self._joining.choose(self._own))
        self.membership.republish()
        await self.membership.greet()

    # -- training -----------------------------------------------------------------------------------------------------

    async def _train(self, max_epochs: int | None) -> None:
        """Epoch after epoch, exchanges beside it; ends for the merge, when we leave, or when the model has diverged."""
        self._enter("training")
        async with beside(self._mixer.run()) as mixing:
            while self.epoch < self._merging.epoch and not (
                self._leaving.is_set() or self._played(max_epochs) or self._own.diverged
            ):
                if self.directives.log.paused(self.epoch) or self._too_few:
                    await self._stand_still()
                else:
                    await self._train_epoch()
            self._own.is_there = False
            self._mixer.stop()
            await asyncio.wait([mixing], timeout=LEAVE_SECONDS)
        if not self._own.diverged:
            async with self.exchanges.at_rest(LEAVE_SECONDS):
                await self._own.show_as_it_is()
            self.membership.announce()
        if self._own.diverged:
            log.warning("the model is not finite any more, taking another's", epoch=self.epoch)
            self._heads.restart()

    async def _train_epoch(self) -> None:
        training = self.directives.log.training(self.epoch)
        assert isinstance(training, Gossip)
        samples = await self._own.train(self.epoch, training)
        before, most = self.epoch, self._others.epoch_of_most
        self._own.epoch = max(before + 1, min(most, self._merging.epoch))
        self._own.count(samples)
        self._rate.add(self.epoch, samples)
        now = self._transport.clock.monotonic()
        self._pace.advance(now, self.epoch - before)
        self._mixer.advanced.notify()
        if self.manifest.evaluation.is_due(before, self.epoch):
            await self._own.evaluate()
        if self._own.is_shown_long_ago(now) and self.epoch < self._merging.epoch:
            await self._own.show_as_it_is()

    async def _stand_still(self) -> None:
        """While the organiser has paused the run, or too few are there."""
        if self.directives.log.paused(self.epoch):
            self._enter("paused")
        while not self._leaving.is_set() and (self.directives.log.paused(self.epoch) or self._too_few):
            await self.changed.wait()
        self._enter("training")
        self._pace.resume(self._transport.clock.monotonic())

    @property
    def quorum(self) -> int:
        return self.manifest.averaging.quorum

    @property
    def _too_few(self) -> bool:
        return len(self._others) + 1 < self.quorum

    async def _merge(self) -> None:
        """All models become one."""
        self._enter("averaging")
        await self._become(await self._merging.merge(self.state, self.contents))

    async def _stay(self) -> None:
        """Until most have another merged state than we: then it is ours, too."""
        if not self._merging.merges:
            await self._leaving.wait()
        await self._become(await self._merging.differing(self.state))

    async def _become(self, state: ModelState) -> None:
        """What all models become at the end."""
        await self._own.become(state)
        self.membership.announce()

    # -- in committees ------------------------------------------------------------------------------------------------

    async def _take_turns(self, committees: Committees) -> None:
        """Until the last round's state is there, which all take from one member."""
        self._enter("training")
        await committees.run()
        await self._transport.clock.sleep(LAST_STATES_SECONDS)
        await self._become(await self._merging.take_one_of_last(self.state))

    # -- as the host of exchanges -------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """Of our model as it is."""
        return self._own.epoch

    @property
    def samples(self) -> int:
        """That this peer adds in an epoch."""
        return self._rate.at(self.epoch)

    @property
    def layers(self) -> Sequence[slice]:
        return self._own.layers

    async def model(self) -> Vector:
        return await self._own.parameters()

    async def shift(self, shift: Vector) -> None:
        await self._own.shift(shift, len(self._others.mixing.peers))

    def met(self, peer: PeerId, epoch: int) -> None:
        self._others.met(peer, epoch)
        self.membership.lives(peer)

    def measured(self, distance: float, own_length: float) -> None:
        self.consensus.measure(distance, own_length)

    def is_member(self, peer: PeerId) -> bool:
        return self.membership.roster.get(peer) is not None

    # -- the others ---------------------------------------------------------------------------------------------------

    @property
    def membership(self) -> Membership:
        return self.company.membership

    @property
    def directives(self) -> Directives:
        return self.company.directives

    def _spoke(self, peer: PeerId, new: bool) -> None:
        member = self.membership.roster.get(peer)
        if member is None:
            self._others.forget(peer)
        else:
            self._others.hear(member)
        self._merging.hear(peer)
        if self._committees is not None:
            self._committees.hear_of_members()
        if new:
            self.changed.notify()

    def _gone(self, peer: PeerId) -> None:
        self._others.forget(peer)
        if self._committees is not None:
            self._committees.hear_of_members()
        self.changed.notify()

    def _entry(self) -> tuple[RosterEntry, int]:
        entry = self._description.entry(
            state_digest=self.state.digest if self.joined else None,
            samples_contributed=self.samples_contributed,
            samples_per_second=self.learner.samples_per_second,
        )
        return entry, self.state.epoch

    # -- what it shows ------------------------------------------------------------------------------------------------

    @property
    def state(self) -> ModelState:
        return self._own.state

    @property
    def contents(self) -> ContentStore:
        return self._own.contents

    @property
    def learner(self) -> GossipLearner | IdleLearner:
        return self._own.learner

    @property
    def evaluation(self) -> dict[str, float]:
        return self._own.evaluation

    @property
    def epochs_played(self) -> int:
        return self._own.epochs_played

    @property
    def samples_contributed(self) -> int:
        return self._own.samples_contributed

    @property
    def averages(self) -> bool:
        return self.profile.role != "monitor"

    @property
    def joined(self) -> bool:
        """Whether we have a state that others can have."""
        return bool(self._heads.history)

    @property
    def finished(self) -> bool:
        return self.state.epoch >= self.manifest.epochs

    @property
    def activity(self) -> Activity:
        return self.phase

    @property
    def epochs_per_second(self) -> float:
        """How fast the swarm goes on, by our last epoch; 1 as long as there was none."""
        return self._pace.per_second

    @property
    def counts(self) -> Counts:
        """Of its exchanges, or of the models that committees hand on."""
        return (self._committees or self.exchanges).counts

    @property
    def gossip_status(self) -> GossipStatus:
        training = self.manifest.training
        assert isinstance(training, Gossip)
        counts = self.counts
        return GossipStatus(
            topology="committee" if self._committees else training.topology,
            mixing=training.mixing,
            consensus_distance=self.consensus.absolute,
            relative_consensus_distance=self.consensus.relative,
            exchanges=counts.completed,
            failed_exchanges=counts.failed,
            busy=counts.busy,
            last_peer=counts.last_peer,
            bytes_sent=counts.bytes_sent,
            bytes_received=counts.bytes_received,
        )
