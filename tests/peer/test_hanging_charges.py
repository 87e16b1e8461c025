"""Who makes charges and is slow to show anything keeps no other charge from being looked into."""

import asyncio

from dht.interfaces import Stream
from peer.simulation.swarm import SimulatedPeer
from peer.verification.inspector import CHARGES_OF_ONE, VERIFY_KIND
from protocols.encoding import digest
from protocols.message import Message
from protocols.rejection import Reason
from protocols.round.messages import Begin, Member, Part, Result, begin_digest
from protocols.verification.charges import OwnerCharge, SenderCharge
from tests.peer.simulated_swarm import SimulatedSwarm, simulate
from tests.peer.test_verification import HONEST, verified


def of_itself(accuser: SimulatedPeer, number: int, epoch: int) -> OwnerCharge:
    """About a part of a round that never was: only its inputs are lacking."""
    signer, chunks = accuser.participant._signer, accuser.participant._plan.grid.chunks
    member = Member(peer=accuser.peer, weight=1, root=digest(b"%d" % number))
    part = Part(owner=accuser.peer, start=0, stop=chunks)
    begin = signer.sign(Begin(base=digest(b"base"), term=0, members=(member,), parts=(part,)), epoch)
    made = (digest(b"chunk"),) * chunks
    result = Result(term=0, part=0, attempt=0, begin=begin_digest(begin.body), chunks=made, included=(1,) * chunks)
    return OwnerCharge(begin=begin.wire, result=signer.sign(result, epoch).wire, observed=(), chunk=0, payload=b"chunk")


def test_who_shows_no_inputs_keeps_no_other_charge_waiting() -> None:
    async def hold(_stream: Stream) -> None:
        await asyncio.Event().wait()

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(HONEST)
        await swarm.epoch(3)
        accuser, honest, judge = (swarm.peers[number] for number in range(3))
        accuser.participant.inspector.inputs.serve = hold
        epoch = judge.state.epoch - 1

        async def say(by: SimulatedPeer, body: Message) -> None:
            wire = by.participant._signer.sign(body, epoch).wire
            await by.transport.request(judge.peer, VERIFY_KIND, wire, 5.0)

        for number in range(CHARGES_OF_ONE):
            await say(accuser, of_itself(accuser, number, epoch))
        await say(honest, SenderCharge(begin=b"", contribution=b"", chunk=0, payload=b""))
        await swarm.network.clock.sleep(30)
        assert judge.rejections.by_peer[honest.peer, Reason.MALFORMED] == 1, "it was looked into"

    simulate(scenario, verified(), seed=1)
