"""Everything bad that a stranger or a member can send, to a real daemon in mid-run.

It is refused and counted under its reason, and the daemon stays in step with another one that nobody attacks.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

from dht.hivemind_quietly import DHTID, PeerID
from dht.node import Node
from peer.home import Home
from peer.status import Status
from protocols.identity import Identity, PeerId
from protocols.manifest import AdamW, Averaging, Data, DataParallel, Manifest, Model
from protocols.records import RosterEntry, record_key
from protocols.rejection import Reason
from protocols.signed import Signer
from tests.dht.worlds import identity, running_node
from tests.peer.attacks import BAD_REQUESTS, BAD_STREAMS, Attacker, BadRequest, BadStream, Situation
from tests.peer.evil_codecs import NotANumber, TooShort
from tests.swarm.evil_members import evil_member
from tests.swarm.faulty import Members
from tests.swarm.processes import LISTEN, Swarm
from tests.swarm.watcher import Watcher, in_round_after

MANIFEST = Manifest(
    name="attacked",
    model=Model(architecture="mlp", options={"width": 512, "layers": 3}),
    data=Data(dataset="digits"),
    training=DataParallel(batch_size=16, target_batch=4000, optimizer=AdamW(learning_rate=0.001)),
    epochs=100_000,
    averaging=Averaging(codec="int8", quorum=2),  # so that neither begins alone
)
STRANGER = identity(77)
OF_ONE = 30
"""Bad inputs of one sender, who is suspended at 33."""
HONEST_REASONS = {Reason.BUSY, Reason.ABSENT, Reason.UNEXPECTED, Reason.STALE, Reason.REPLAYED}
"""What honest members hear from each other, too, when messages cross."""
OF_A_SHORT_CHUNK = {Reason.WRONG_SHAPE, Reason.WRONG_DIGEST}
"""The second when other chunks follow it in one frame: they begin where it should have ended."""
SECONDS = 90.0


@dataclass
class Victim:
    watcher: Watcher

    @property
    def status(self) -> Status:
        assert self.watcher.last is not None
        return self.watcher.last

    @property
    def peer(self) -> PeerId:
        return PeerId(self.status.self_.peer_id)

    @property
    def address(self) -> tuple[PeerId, tuple[str, ...]]:
        return self.peer, self.status.self_.addresses

    def seen_by(self, attacker: Attacker) -> Situation:
        digest = self.status.self_.state_digest
        assert digest is not None
        return Situation(attacker, STRANGER, self.status.self_.epoch, bytes.fromhex(digest))

    def rejected(self) -> Counter[str]:
        """By `peer status --json`."""
        status = self.watcher.daemon.status()
        assert status is not None
        return Counter(status["rejected"])

    async def wait(self, what: str, condition: Callable[[Status], bool]) -> Status:
        return await asyncio.to_thread(self.watcher.wait, what, condition, SECONDS)


@asynccontextmanager
async def attacker_on(directory: Path, number: int, victim: Victim) -> AsyncIterator[tuple[Attacker, Node]]:
    async with running_node(directory, identity(number)) as node:
        await node.transport.connect(*victim.address)
        yield Attacker(identity(number), node.transport, MANIFEST.run_id), node


async def ask_badly(attacker: Attacker, victim: Victim, batch: Sequence[BadRequest]) -> Counter[str]:
    """What the victim has said no to, and why."""
    refused: Counter[str] = Counter()
    for bad in batch:
        reason, epoch = "", -1
        while reason != bad.reason and epoch != victim.status.self_.epoch:  # again, when it had just gone on
            epoch = victim.status.self_.epoch
            reason = await attacker.ask(victim.peer, bad.kind, bad.body(victim.seen_by(attacker)))
            refused.update([reason] if reason else [])
        assert reason == bad.reason, (bad.kind, bad.name)
    return refused


async def stream_badly(attacker: Attacker, victim: Victim, batch: Sequence[BadStream]) -> Counter[str]:
    for bad in batch:
        await attacker.stream(victim.peer, bad.kind, bad.frames(victim.seen_by(attacker)))
    return Counter(str(bad.reason) for bad in batch)


async def publish_badly(mallory: Identity, node: Node, victim: Victim) -> Counter[str]:
    """Records that the victim shall store for others."""
    dumps = node.dht.protocol.serializer.dumps
    key = DHTID.generate(source=record_key(MANIFEST.run_id, RosterEntry.kind))
    expires = time.time() + 60
    attacker = Attacker(mallory, node.transport, MANIFEST.run_id)
    record = attacker.wire(attacker.roster_entry(None, expires=expires), 0)
    elsewhere = Signer(mallory, "other-" + "a" * 26, 1).sign(attacker.roster_entry(None, expires=expires), 0).wire
    attempts = [
        (dumps(record), expires, victim.peer, Reason.WRONG_SENDER),
        (dumps(elsewhere), expires, mallory.peer_id, Reason.WRONG_RUN),
        (dumps(record[:-1]), expires, mallory.peer_id, Reason.MALFORMED),
        (b"\xc1", expires, mallory.peer_id, Reason.MALFORMED),
        (dumps(bytes(100_000)), expires, mallory.peer_id, Reason.OVERSIZED),
    ]
    for value, when, subkey, reason in attempts:
        target = PeerID.from_base58(victim.peer)
        stored = await node.dht.protocol.call_store(target, [key], [value], [when], [subkey])
        assert stored == [False], reason
    return Counter(str(reason) for *_, reason in attempts)


async def test_strangers_that_send_everything_bad_change_nothing_in_a_daemon(swarm: Swarm, tmp_path: Path) -> None:
    async with two_daemons(swarm) as (victim, witness, run):
        before, epoch = victim.rejected(), run.epoch()
        expected: Counter[str] = Counter()
        batches = [*in_batches(BAD_REQUESTS), *in_batches(BAD_STREAMS)]
        async with AsyncExitStack() as stack:
            attackers = await asyncio.gather(
                *(stack.enter_async_context(attacker_on(tmp_path, 10 + n, victim)) for n in range(len(batches) + 1))
            )
            for (attacker, _), batch in zip(attackers, batches, strict=False):
                attack = ask_badly if isinstance(batch[0], BadRequest) else stream_badly
                expected += await attack(attacker, victim, batch)
            last, node = attackers[-1]
            expected += await publish_badly(last.identity, node, victim)

            def all_counted(status: Status) -> bool:
                return not expected - (Counter(status.rejected) - before)

            await victim.wait("aware of every refusal", all_counted)
        refused = victim.rejected() - before
        assert {reason: n for reason, n in refused.items() if reason not in HONEST_REASONS} == {
            reason: n for reason, n in expected.items() if reason not in HONEST_REASONS
        }
        await check_they_go_on(victim, witness, run, epoch)


async def test_members_whose_chunks_and_results_are_spoiled_reach_no_daemons_state(
    swarm: Swarm, tmp_path: Path
) -> None:
    async with two_daemons(swarm) as (victim, witness, run):
        before, epoch = victim.rejected(), run.epoch()
        daemons = [victim.address, witness.address]
        async with (
            evil_member(tmp_path, identity(8), MANIFEST, daemons, NotANumber),
            evil_member(tmp_path, identity(9), MANIFEST, daemons, TooShort),
        ):
            for one in (victim, witness):
                await one.wait(
                    "refusing what is no number and what has no shape",
                    lambda s: "non_finite" in s.rejected and not OF_A_SHORT_CHUNK.isdisjoint(s.rejected),
                )
            await victim.wait("in a round that has mended parts", lambda _: mended(victim))
        assert before.keys().isdisjoint({"non_finite", *OF_A_SHORT_CHUNK})
        await check_they_go_on(victim, witness, run, epoch)


def mended(victim: Victim) -> bool:
    """Whether chunks were left out (`missing_senders`), and parts whose results were wrong went to another owner."""
    rounds = victim.watcher.rounds.values()
    return any(r.missing_senders for r in rounds) and any(r.recovered_parts for r in rounds)


@asynccontextmanager
async def two_daemons(swarm: Swarm) -> AsyncIterator[tuple[Victim, Victim, Members]]:
    daemons = [swarm.daemon("victim"), swarm.daemon("witness")]
    for daemon in daemons:
        Home(daemon.home).store_manifest(MANIFEST)
        daemon.start(MANIFEST.run_id, *LISTEN)
    with (
        closing(Watcher(daemons[0], MANIFEST.run_id)) as first,
        closing(Watcher(daemons[1], MANIFEST.run_id)) as second,
    ):
        for watcher in (first, second):
            await asyncio.to_thread(watcher.wait, "in a round of two", in_round_after(-1, 2), SECONDS)
        yield Victim(first), Victim(second), Members(MANIFEST.run_id, [first, second])


async def check_they_go_on(victim: Victim, witness: Victim, run: Members, epoch: int) -> None:
    """In step, with one history since `epoch`; nothing has gone wrong in the victim."""
    assert run.epoch() > epoch
    after = run.epoch()
    for one in (victim, witness):
        await one.wait("in a round of two", in_round_after(after, 2))
        assert one.watcher.resyncs == 0
    assert "handler_failed" not in victim.rejected()
    run.assert_one_history()


def in_batches(bad: Sequence[BadRequest] | Sequence[BadStream]) -> list[Sequence[BadRequest] | Sequence[BadStream]]:
    return [bad[start : start + OF_ONE] for start in range(0, len(bad), OF_ONE)]
