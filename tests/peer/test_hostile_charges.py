"""Charges that are never proved keep nobody from being heard with one that is."""

import asyncio

import numpy as np

from dht.interfaces import Stream
from peer.membership import HELLO_KIND
from peer.swarm.evidence import EVIDENCE_KIND
from peer.swarm.inspector import CHARGE_KIND
from peer.swarm.microbatch import Tensor
from protocols.encoding import digest
from protocols.identity import PeerId
from protocols.rejection import Reason
from protocols.swarm.charges import AnswerCharge
from protocols.swarm.messages import Answer, Work, work_digest
from tests.peer.attacks import Attacker
from tests.peer.pipeline_swarm import PipelineSwarm, pipeline, simulate
from tests.peer.simulated_swarm import identity

MANIFEST = pipeline(epochs=3, stages=2, spot_checks=0.01)
INPUTS = Tensor.of(np.zeros((8, 64), np.float32), "none")
OUTPUTS = Tensor.of(np.zeros((8, 16), np.float32), "none").header


def charge(number: int, answerers: list[Attacker]) -> AnswerCharge:
    """Of two who have answered one work differently."""
    work = Work(task="forward", epoch=0, stage=0, microbatch=number % 8, inputs=INPUTS.header, other=None)
    asked = work_digest(work, digest(b"%d" % number))
    answers = [
        one.wire(Answer(outcome="done", work=asked, tensor=OUTPUTS, payload=digest(one.peer.encode())), 0)
        for one in answerers
    ]
    return AnswerCharge(work=work, first=answers[0], second=answers[1])


def test_who_shows_no_evidence_keeps_no_other_charge_from_being_heard() -> None:
    async def scenario(swarm: PipelineSwarm) -> None:
        for number in range(4):
            await swarm.start(number, stage=number % 2)
        victim = swarm.peers[0]
        await swarm.until(lambda: victim.state.epoch >= 2, within=60)
        attackers = []
        for number in (97, 98, 99):
            who = identity(number)
            transport = swarm.network.join(who.peer_id)
            attacker = Attacker(who, transport, swarm.manifest.run_id)
            attackers.append(attacker)
            await transport.connect(victim.transport.peer_id, victim.transport.addresses)

            async def answer(_peer: PeerId, _wire: bytes, attacker: Attacker = attacker) -> bytes:
                return attacker.wire(attacker.roster_entry(None), 0)

            await transport.serve_requests(HELLO_KIND, answer)
            assert not await attacker.ask(
                victim.transport.peer_id, HELLO_KIND, attacker.wire(attacker.roster_entry(None), 0)
            )
        [accuser, *answerers] = attackers

        async def show_nothing(stream: Stream) -> None:
            await asyncio.Event().wait()

        await accuser.transport.serve_streams(EVIDENCE_KIND, show_nothing)
        for number in range(24):
            await accuser.ask(victim.transport.peer_id, CHARGE_KIND, accuser.wire(charge(number, answerers), 0))
            await victim.transport.clock.sleep(10)
        honest = swarm.peers[1]
        wire = honest.pipeline.inspector._signer.sign(charge(999, answerers), 0).wire
        await honest.transport.request(victim.transport.peer_id, CHARGE_KIND, wire, 5)
        await victim.transport.clock.sleep(150)
        assert honest.rejections.by_peer[victim.transport.peer_id, Reason.ABSENT] == 1, "it was asked for its evidence"
        for attacker in attackers:
            await attacker.transport.close()

    simulate(scenario, MANIFEST)
