"""Members of a simulated swarm that lie about the state, or flood the others: they change nothing."""

import pytest

from dht.interfaces import Stream, TransportError
from peer.contents import BLOCKS_KIND, INDEX_KIND
from peer.membership import HELLO_KIND
from peer.participant import Participant
from peer.rounds.post import ROUND_KIND
from peer.sync import HEAD_KIND
from protocols.heads import Head
from protocols.identity import PeerId
from protocols.rejection import Reason
from protocols.round.messages import Progress, Standing
from protocols.signed import Signer
from tests.peer.simulated_swarm import (
    HARMLESS,
    SimulatedSwarm,
    data_parallel,
    identity,
    samples,
    simulate,
)


class Forger(Participant):
    """Signs another digest than that of its state, wherever it is asked; `boast`: and a later epoch."""

    boast = 0

    async def start(self) -> None:
        await super().start()
        for kind in (HEAD_KIND, HELLO_KIND):
            del self._transport._services[kind]  # type: ignore[attr-defined]
        await self._transport.serve_requests(HEAD_KIND, self._forge_head)
        await self._transport.serve_requests(HELLO_KIND, self._forge_hello)

    async def _forge_head(self, _peer: PeerId, nonce: bytes) -> bytes:
        return self._signer.sign(Head(digests=(b"\x66" * 32,), nonce=nonce), self.state.epoch + self.boast).wire

    async def _forge_hello(self, _peer: PeerId, _wire: bytes) -> bytes:
        entry, epoch = self._entry()
        expires = self._transport.clock.wall() + entry.ttl_seconds
        forged = entry.model_copy(update={"state_digest": b"\x66" * 32, "expires": expires})
        return self._signer.sign(forged, epoch + self.boast).wire


class Boaster(Forger):
    boast = 10**9


class Corrupter(Participant):
    """Serves blocks with a flipped bit, and an index of nonsense."""

    async def start(self) -> None:
        await super().start()
        for kind in (INDEX_KIND, BLOCKS_KIND):
            del self._transport._services[kind]  # type: ignore[attr-defined]
        await self._transport.serve_requests(INDEX_KIND, self._corrupt_index)
        await self._transport.serve_streams(BLOCKS_KIND, self._corrupt_blocks)

    async def _corrupt_index(self, peer: PeerId, address: bytes) -> bytes:
        return (await self.contents.serve_index(peer, address))[:-1] + b"x"

    async def _corrupt_blocks(self, stream: Stream) -> None:
        await self.contents.serve_blocks(CorruptingStream(stream))


class CorruptingStream(Stream):
    def __init__(self, stream: Stream) -> None:
        self.peer, self._stream = stream.peer, stream
        self.receive, self.close, self.abort = stream.receive, stream.close, stream.abort  # type: ignore[method-assign]

    async def send(self, frame) -> None:
        payload = bytearray(frame.payload)
        payload[-1] ^= 1
        await self._stream.send(type(frame)(frame.header, payload))

    async def receive(self): ...
    async def close(self) -> None: ...
    def abort(self) -> None: ...


@pytest.mark.parametrize("liar", [Forger, Boaster, Corrupter])
def test_a_joiner_gets_the_right_state_in_spite_of_a_liar(liar: type[Participant]) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(3)
        await swarm.start(3, make=liar)
        await swarm.epoch(5)
        joiner = await swarm.start(4)
        await swarm.until(lambda: joiner.participant.joined, within=30)
        assert swarm.peers[0].digests[joiner.state.epoch] == joiner.state.digest
        if liar is Corrupter:
            assert joiner.rejections.by_peer[swarm.peers[3].peer, Reason.WRONG_DIGEST]
        await swarm.finish(within=200)
        assert all(samples(swarm)[:3])
        honest = [swarm.peers[number].peer for number in (0, 1, 2, 4)]
        blamed = {who for peer in swarm.running for who, reason in peer.rejections.by_peer if reason not in HARMLESS}
        assert blamed.isdisjoint(honest)

    parameters = 1_100_000 if liar is Corrupter else 300_000  # as many blocks as holders: each is asked for one
    simulate(scenario, data_parallel(epochs=10, target_batch=800), seed=5, parameters=parameters)


def test_a_flood_of_stale_and_repeated_messages_stops_nobody() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(3)
        await swarm.epoch(3)
        who = identity(99)
        flooder = swarm.network.join(who.peer_id)
        signer = Signer(who, swarm.manifest.run_id, 1)
        target = swarm.peers[0]
        await flooder.connect(target.peer, target.transport.addresses)
        old = signer.sign(Standing(base=b"\x01" * 32, samples=1), 0).wire
        refused = 0
        for number in range(600):
            epoch = [0, 10**9, target.state.epoch][number % 3]
            progress = Progress(
                base=target.state.digest,
                samples=0,
                complete=True,
                client_mode=True,
                samples_per_second=0.0,
            )
            for wire in (old, signer.sign(progress, epoch).wire):
                try:
                    await flooder.request(target.peer, ROUND_KIND, wire, 5.0)
                except TransportError:
                    refused += 1
        assert refused
        assert len(target.participant._conversation.sessions) <= 8
        await flooder.close()
        await swarm.finish(within=100)
        assert all(samples(swarm))

    simulate(scenario, data_parallel(epochs=40), seed=6)
