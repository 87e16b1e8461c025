"""The tensors of a charge are shown to whoever looks into it, whatever others do who have asked for them."""

import asyncio

from dht.interfaces import Frame, Stream
from dht.simulated import SimulatedNetwork, run_simulation
from peer.swarm.evidence import EVIDENCE_KIND, FETCH_SECONDS, SHOWN_AT_ONCE, EvidenceStore
from protocols.swarm.charges import AnswerCharge, charge_digest
from tests.peer.simulated_swarm import identity
from tests.peer.test_router import WORK

CHARGE = AnswerCharge(work=WORK, first=b"", second=b"")
TENSOR = bytes(16 * 1024 * 1024)
"""More than is on its way to who reads nothing."""


def test_who_asks_for_evidence_and_takes_none_keeps_it_from_nobody() -> None:
    async def main(network: SimulatedNetwork) -> None:
        holder, hostile, honest = (network.join(identity(number).peer_id) for number in range(3))
        for other in (hostile, honest):
            await other.connect(holder.peer_id, holder.addresses)
        store = EvidenceStore(holder, lambda _peer: None)
        await store.serve()
        store.keep(CHARGE, [TENSOR])

        async def ask(transport: object) -> Stream:
            stream: Stream = await transport.open_stream(holder.peer_id, EVIDENCE_KIND)  # type: ignore[attr-defined]
            await stream.send(Frame(charge_digest(CHARGE)))
            return stream

        asked = [await ask(hostile) for _ in range(2 * SHOWN_AT_ONCE)]
        async with asyncio.timeout(FETCH_SECONDS):
            stream, received = await ask(honest), 0
            while received < len(TENSOR):
                frame = await stream.receive()
                assert frame is not None
                received += len(frame.payload)
        for each in (stream, *asked):
            each.abort()
        for transport in (holder, hostile, honest):
            await transport.close()

    run_simulation(main, 0)
