"""Members that are still fetching the run's data: known to the others, in nobody's way, free to leave."""

import asyncio
from functools import partial

from peer.learner import IdleLearner, Learner
from peer.participant import Participant
from tests.peer.simulated_swarm import QuadraticLearner, SimulatedSwarm, data_parallel, identity, simulate

FETCHING_SECONDS = 30.0


def test_who_is_still_fetching_data_holds_nobody_up_and_joins_when_it_is_there() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        async def fetch() -> Learner:
            await swarm.network.clock.sleep(FETCHING_SECONDS)
            return QuadraticLearner(swarm.manifest, identity(3).peer_id, swarm.network.clock, 200.0)

        await swarm.start_all(3)
        await swarm.network.clock.sleep(FETCHING_SECONDS)
        undisturbed = swarm.peers[0].state.epoch
        late = await swarm.start(3, make=partial(Participant, prepare=fetch))
        await swarm.network.clock.sleep(FETCHING_SECONDS - 1)
        assert len(swarm.peers[0].participant.membership.roster) == 3
        assert late.state.epoch == 0
        assert swarm.peers[0].state.epoch - undisturbed > 0.9 * undisturbed
        await swarm.until(lambda: late.participant.samples_contributed and swarm.agree(), within=30)

    simulate(scenario, data_parallel(epochs=1000), seed=1)


def test_who_is_still_fetching_data_may_leave() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        async def wait() -> Learner:
            await asyncio.Event().wait()
            return IdleLearner()

        await swarm.start(0)
        patient = await swarm.start(1, make=partial(Participant, prepare=wait))
        await swarm.network.clock.sleep(5)
        assert len(swarm.peers[0].participant.membership.roster) == 1
        await swarm.leave(patient)
        assert len(swarm.peers[0].participant.membership.roster) == 0

    simulate(scenario, data_parallel(epochs=1000), seed=2)
