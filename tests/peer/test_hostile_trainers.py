"""What a hostile trainer sends to a stage is refused, and every microbatch of the others counts once."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from dht.interfaces import MAX_STREAMS_PER_PEER, Frame, Stream, Unreachable
from peer.models.stages import join
from peer.swarm.microbatch import Tensor
from peer.swarm.receiving import MOST_WORKS_OF_ONE
from peer.swarm.server import COUNT_KIND, WORK_KIND, StageServer
from protocols.encoding import digest
from protocols.identity import Identity, PeerId
from protocols.message import Message
from protocols.rejection import Reason
from protocols.signed import Signer, open_signed
from protocols.swarm.coverage import everything, from_bytes, to_bytes
from protocols.swarm.messages import Answer, Count, Delivery, Work, work_digest
from tests.peer.attacks import Attacker
from tests.peer.pipeline_swarm import Peer, PipelineSwarm, pipeline, simulate
from tests.peer.simulated_swarm import identity
from tests.peer.test_pipeline import in_one_process

MANIFEST = pipeline(epochs=6, stages=2)
EPOCH = 2
"""When it begins."""
MICROBATCHES = MANIFEST.training.microbatches
ATTACKER = 99

Attack = Callable[[Attacker, Peer, PipelineSwarm], Awaitable[Any]]
"""By whom, and on whom: a peer of the first stage."""


def under(attack: Attack) -> Counter[str]:
    """Four peers train in two stages, to the parameters of one process; why the victim has refused the attacker."""

    async def scenario(swarm: PipelineSwarm) -> tuple[np.ndarray, Counter[str]]:
        for number in range(4):
            await swarm.start(number, stage=number % 2)
        victim = swarm.peers[0]
        await swarm.until(lambda: victim.state.epoch >= EPOCH, within=60)
        who = identity(ATTACKER)
        transport = swarm.network.join(who.peer_id)
        await transport.connect(victim.transport.peer_id, victim.transport.addresses)
        attacker = Attacker(who, transport, swarm.manifest.run_id)
        await attack(attacker, victim, swarm)
        await swarm.finish(within=300)
        await transport.close()
        honest = {peer.transport.peer_id for peer in swarm.running}
        assert not [peer for peer, _ in victim.rejections.by_peer if peer in honest]
        refused = {reason: n for (peer, reason), n in victim.rejections.by_peer.items() if peer == who.peer_id}
        return join(swarm.parameters()), Counter(refused)

    trained, refused = simulate(scenario, MANIFEST)
    np.testing.assert_allclose(trained, in_one_process(MANIFEST)[-1].parameters, rtol=1e-4, atol=1e-5)
    return refused


# -- counts -----------------------------------------------------------------------------------------------------------


def count(microbatches: int, stage: int = 0) -> Count:
    return Count(stage=stage, microbatches=to_bytes(microbatches))


async def ask_count(attacker: Attacker, victim: Peer, body: Message, epoch: int) -> int:
    wire = attacker.wire(body, epoch)
    return from_bytes(await attacker.transport.request(victim.transport.peer_id, COUNT_KIND, wire, 5))


def test_who_has_had_nothing_computed_counts_nothing() -> None:
    """Nor what was computed for others."""

    async def attack(attacker: Attacker, victim: Peer, swarm: PipelineSwarm) -> None:
        stage = victim.pipeline.server.stage
        assert stage is not None
        for _ in range(50):
            epoch = stage.epoch
            counted = await ask_count(attacker, victim, count(everything(MICROBATCHES)), epoch)
            assert stage.epoch > epoch or counted & ~stage.open_epochs.get(epoch, 0) == 0
            assert await ask_count(attacker, victim, count(everything(MICROBATCHES)), 2**40) == 0
            assert await ask_count(attacker, victim, count(1, stage=1), stage.epoch) == 0
            await victim.transport.clock.sleep(0.02)

    assert under(attack) == Counter()


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[PeerId, PeerId, bytes]]:
    """All that come: to whom, from whom, the signed words."""
    heard: list[tuple[PeerId, PeerId, bytes]] = []
    handle = StageServer._count

    async def listen(self: StageServer, trainer: PeerId, wire: bytes) -> bytes:
        heard.append((self._transport.peer_id, trainer, wire))
        return await handle(self, trainer, wire)

    monkeypatch.setattr(StageServer, "_count", listen)
    return heard


def test_counts_that_are_said_again_count_nothing_twice(counts: list[tuple[PeerId, PeerId, bytes]]) -> None:
    """By who has said them first; by another they are refused."""
    replayed = 0

    async def attack(attacker: Attacker, victim: Peer, swarm: PipelineSwarm) -> None:
        nonlocal replayed
        trainers = {peer.transport.peer_id: peer.transport for peer in swarm.running}
        to_victim = [each for each in counts if each[0] == victim.transport.peer_id]
        for to, trainer, wire in to_victim:
            wanted = open_signed(wire, Count, run=swarm.manifest.run_id).body.microbatches
            assert await trainers[trainer].request(to, COUNT_KIND, wire, 5) == wanted
            assert await attacker.ask(to, COUNT_KIND, wire) == Reason.WRONG_SENDER
        replayed = len(to_victim)

    refused = under(attack)
    assert refused == {Reason.WRONG_SENDER: replayed}
    assert replayed


def test_counts_that_are_none_are_refused() -> None:
    another = Signer(identity(ATTACKER), pipeline(epochs=7, stages=2).run_id, 1)
    forged = Signer(Identity.from_seed(b"s" * 32), MANIFEST.run_id, 1)

    async def attack(attacker: Attacker, victim: Peer, swarm: PipelineSwarm) -> None:
        to, good = victim.transport.peer_id, count(1)
        for wire, reason in [
            (attacker.wire(count(1 << MICROBATCHES), EPOCH), Reason.UNEXPECTED),
            (attacker.wire(count(everything(4096)), EPOCH), Reason.UNEXPECTED),
            (another.sign(good, EPOCH).wire, Reason.WRONG_RUN),
            (forged.sign(good, EPOCH).wire, Reason.WRONG_SENDER),
            (attacker.wire(good, EPOCH)[:-1] + b"\xff", Reason.BAD_SIGNATURE),
            (attacker.wire(good, EPOCH)[:-1], Reason.MALFORMED),
            (b"", Reason.MALFORMED),
            (bytes(64 * 1024), Reason.OVERSIZED),
        ]:
            assert await attacker.ask(to, COUNT_KIND, wire) == reason

    refused = under(attack)
    assert refused[Reason.UNEXPECTED] == 2
    assert refused.total() == 8


# -- works ------------------------------------------------------------------------------------------------------------

INPUTS = Tensor.of(np.zeros((8, 64), np.float32), "none")
GRADIENT = Tensor.of(np.zeros((8, 16), np.float32), "none")


def work(**changes: Any) -> Work:
    fields = {"task": "forward", "epoch": EPOCH, "stage": 0, "microbatch": 0, "inputs": INPUTS.header, "other": None}
    return Work(**(fields | changes))


def delivery(kept: bytes | None = None, **changes: Any) -> bytes:
    return Delivery(work=work(**changes), kept=kept).to_bytes()


def of_shape(*shape: int) -> Any:
    return INPUTS.header.model_copy(update={"shape": shape})


WHOLE, INCOMPLETE = bytes(INPUTS.payload), bytes(INPUTS.payload)[:-1]


def bad_works(epoch: int) -> list[tuple[list[Frame], Reason]]:
    """Of an epoch that is under way: of any other, nothing is computed, so that it is not looked at."""
    made = partial(delivery, epoch=epoch)
    return [
        ([Frame(b"", b"x")], Reason.MALFORMED),
        ([Frame(b"no work")], Reason.MALFORMED),
        ([Frame(made(inputs=of_shape(8, 65)))], Reason.WRONG_SHAPE),
        ([Frame(made(inputs=of_shape(2**20, 64)))], Reason.WRONG_SHAPE),
        ([Frame(made(task="backward"))], Reason.MALFORMED),
        ([Frame(made(other=GRADIENT.header))], Reason.MALFORMED),
        ([Frame(made(task="backward", other=INPUTS.header))], Reason.WRONG_SHAPE),
        ([Frame(made(microbatch=MICROBATCHES))], Reason.UNEXPECTED),
        ([Frame(made(kept=bytes(32)), WHOLE)], Reason.MALFORMED),
        ([Frame(made(kept=bytes(32), task="backward", other=GRADIENT.header), WHOLE)], Reason.WRONG_SHAPE),
        ([Frame(made())], Reason.WRONG_SHAPE),
        ([Frame(made(), WHOLE + b"x")], Reason.WRONG_SHAPE),
        ([Frame(made(), INCOMPLETE), Frame()], Reason.WRONG_SHAPE),
        ([Frame(made(), np.full((8, 64), np.nan, np.float32).tobytes())], Reason.NON_FINITE),
    ]


def test_works_that_are_none_are_refused() -> None:
    async def attack(attacker: Attacker, victim: Peer, swarm: PipelineSwarm) -> None:
        for number in range(len(bad_works(EPOCH))):
            frames, reason = bad_works(victim.state.epoch)[number]
            before = victim.rejections.by_peer[attacker.peer, reason]
            await attacker.stream(victim.transport.peer_id, WORK_KIND, frames)
            assert victim.rejections.by_peer[attacker.peer, reason] == before + 1, number

    assert under(attack).total() == len(bad_works(EPOCH))


def test_who_has_had_no_such_forward_pass_done_must_send_the_inputs() -> None:
    """Neither another's nor one of other inputs stands for it: the answer would be signed for what was not computed."""
    outcomes: list[str] = []

    async def attack(attacker: Attacker, victim: Peer, swarm: PipelineSwarm) -> None:
        async def ask(wire: bytes, payload: bytes) -> Answer:
            stream = await attacker.transport.open_stream(victim.transport.peer_id, WORK_KIND)
            await stream.send(Frame(wire, payload))
            said = await answer(stream)
            stream.abort()
            outcomes.append(said.outcome)
            return said

        stage = victim.pipeline.server.stage
        assert stage is not None
        epoch, gradient = stage.epoch, bytes(GRADIENT.payload)
        back: dict[str, Any] = {"task": "backward", "other": GRADIENT.header, "epoch": epoch}
        ours = digest(WHOLE)
        await ask(delivery(kept=ours, **back), gradient)
        forward = await ask(delivery(epoch=epoch), WHOLE)
        assert forward.kept
        await ask(delivery(kept=digest(b"others"), **back), gradient)
        await ask(delivery(kept=ours, microbatch=1, **back), gradient)
        await ask(delivery(kept=ours, inputs=of_shape(8, 1, 64), **back), gradient)
        done = await ask(delivery(kept=ours, **back), gradient)
        assert done.work == work_digest(work(**back), ours, digest(gradient))
        await ask(delivery(kept=ours, **back), gradient)

    assert under(attack) == Counter()
    assert outcomes == ["forgotten", "done", "forgotten", "forgotten", "forgotten", "done", "forgotten"]


async def answer(stream: Stream) -> Answer:
    frame = await stream.receive()
    assert frame is not None
    return open_signed(frame.header, Answer, run=MANIFEST.run_id).body


def test_who_begins_to_send_many_works_hears_busy_and_is_served_when_it_has_ended_them() -> None:
    half = len(WHOLE) // 2

    async def attack(attacker: Attacker, victim: Peer, swarm: PipelineSwarm) -> None:
        streams = [await attacker.transport.open_stream(victim.transport.peer_id, WORK_KIND) for _ in range(20)]
        for stream in streams:
            await stream.send(Frame(delivery(), WHOLE[:half]))
        for stream in streams[MOST_WORKS_OF_ONE:]:
            await stream.send(Frame(b"", WHOLE[half:]))
            refusal = await answer(stream)
            assert (refusal.outcome, refusal.work) == ("busy", work_digest(work()))
        for stream in streams[1:MOST_WORKS_OF_ONE]:
            stream.abort()
        await streams[0].send(Frame(b"", WHOLE[half:]))
        assert (await answer(streams[0])).outcome in ("done", "late")
        for stream in streams[MOST_WORKS_OF_ONE:]:
            await stream.send(Frame(delivery(), WHOLE))
            assert (await answer(stream)).outcome in ("done", "late")

    assert under(attack) == Counter()


def test_thousands_of_streams_hold_up_nobody() -> None:
    opened = 2000

    async def attack(attacker: Attacker, victim: Peer, swarm: PipelineSwarm) -> None:
        async def hold() -> bool:
            stream = await attacker.transport.open_stream(victim.transport.peer_id, WORK_KIND)
            try:
                await stream.send(Frame(delivery(), INCOMPLETE))
                return await stream.receive() is None
            except Unreachable:
                return False

        async with asyncio.TaskGroup() as tasks:
            held = [tasks.create_task(hold()) for _ in range(opened)]
            await swarm.until(lambda: sum(task.done() for task in held) >= opened - MAX_STREAMS_PER_PEER, within=60)
            await swarm.finish(within=300)
            for task in held:
                task.cancel()

    assert under(attack)[Reason.BUSY] == opened - MAX_STREAMS_PER_PEER
