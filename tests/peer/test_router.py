"""A work goes to one peer after the other until one has done it; each is waited for as long as it usually takes."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any

import numpy as np
import pytest

from dht.interfaces import Clock, TimedOut, Transport
from dht.simulated import SimulatedNetwork, run_simulation
from peer.swarm.client import Reply
from peer.swarm.microbatch import Tensor
from peer.swarm.router import FIRST_SECONDS, LEAST_SECONDS, MOST_SECONDS, PATIENCE, UNTIMELY_SECONDS, Router, Untimely
from protocols.identity import PeerId
from protocols.signed import Signer
from protocols.swarm.messages import Answer, Outcome, Work, work_digest
from protocols.swarm.wiring import Wiring
from tests.peer.simulated_swarm import identity

INPUTS = Tensor.of(np.zeros((1, 1), np.float32), "none")
WORK = Work(task="forward", epoch=0, stage=0, microbatch=0, inputs=INPUTS.header, other=None)
FAST, SLOW = PeerId("fast"), PeerId("slow")


class Client:
    """Peers that take so many seconds for a work, as long as they are waited for, and then say `outcome`, or what is
    theirs of `outcomes`."""

    outcome: Outcome = "done"

    def __init__(self, clock: Clock, seconds: Mapping[PeerId, float]) -> None:
        self.seconds, self.done, self.given_up = dict(seconds), Counter[PeerId](), Counter[PeerId]()
        self.without_inputs = Counter[PeerId]()
        self.outcomes: dict[PeerId, Outcome] = {}
        self._clock = clock
        self._signer = Signer(identity(0), "run", 0)

    async def ask(self, peer: PeerId, work: Work, _payloads: Any, _accepted: Any, seconds: float, kept: bool) -> Reply:
        await self._clock.sleep(min(seconds, self.seconds[peer]))
        if seconds < self.seconds[peer]:
            self.given_up[peer] += 1
            raise TimedOut(f"{peer} is slow")
        self.done[peer] += 1
        self.without_inputs[peer] += kept
        answer = Answer(outcome=self.outcomes.get(peer, self.outcome), work=work_digest(work))
        return Reply(self._signer.sign(answer, work.epoch), None)

    def forget(self, peer: PeerId) -> None:
        pass


def routed(seconds: Mapping[PeerId, float], scenario: Callable[[Router, Client], Awaitable[None]]) -> None:
    async def main(network: SimulatedNetwork) -> None:
        transport: Transport = network.join(identity(0).peer_id)
        client = Client(transport.clock, seconds)
        router = Router(transport, client, Wiring(Random(0).random), lambda: {0: list(seconds)})  # type: ignore[arg-type]
        await scenario(router, client)

    run_simulation(main, 0)


async def ask(router: Router, times: int) -> list[PeerId]:
    return [(await router.ask(WORK, [INPUTS], []))[0] for _ in range(times)]


def test_a_peer_that_is_far_slower_than_the_others_is_waited_for() -> None:
    """What it does for who has given it up, it does in vain."""

    async def scenario(router: Router, client: Client) -> None:
        await ask(router, 400)
        assert client.given_up == {}
        assert client.done[SLOW] > 1

    routed({FAST: 0.1, SLOW: 2 * LEAST_SECONDS}, scenario)


@pytest.mark.parametrize("usual", [0.01, 1.0, 15.0])
def test_a_peer_is_given_up_after_several_times_what_it_usually_takes(usual: float) -> None:
    async def scenario(router: Router, client: Client) -> None:
        await ask(router, 20)
        assert router.patience(WORK, FAST) == pytest.approx(min(MOST_SECONDS, max(LEAST_SECONDS, PATIENCE * usual)))
        assert router.patience(WORK, SLOW) == FIRST_SECONDS  # of which nothing is known

    routed({FAST: usual}, scenario)


def test_who_hangs_is_passed_by() -> None:
    async def scenario(router: Router, client: Client) -> None:
        assert set(await ask(router, 20)) == {FAST}
        assert client.given_up[SLOW] <= 4

    routed({FAST: 0.1, SLOW: 1e6}, scenario)


def test_only_who_has_kept_the_inputs_is_not_sent_them() -> None:
    async def scenario(router: Router, client: Client) -> None:
        for _ in range(20):
            await router.ask(WORK, [INPUTS], [], wanted=SLOW)
        assert client.without_inputs == client.done == Counter({SLOW: 20})
        for _ in range(20):
            await router.ask(WORK, [INPUTS], [], exclude=[SLOW], wanted=SLOW)
        assert client.without_inputs == Counter({SLOW: 20})
        assert client.done[FAST] == 20

    routed({FAST: 0.1, SLOW: 0.2}, scenario)


def test_work_whose_epoch_is_over_is_given_up() -> None:
    async def scenario(router: Router, client: Client) -> None:
        client.outcome = "late"
        with pytest.raises(Untimely):
            await ask(router, 1)

    routed({FAST: 0.1, SLOW: 0.2}, scenario)


def test_a_stage_that_nobody_serves_for_long_is_waited_for() -> None:
    async def scenario(router: Router, client: Client) -> None:
        client.seconds[FAST] = 1e6
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(20 * UNTIMELY_SECONDS):
                await ask(router, 1)
        client.seconds[FAST] = 0.1
        assert await ask(router, 1) == [FAST]

    routed({FAST: 0.1}, scenario)
