"""kill -9 of one of four whole participants, whatever its role, in every phase of a round.

The others finish that epoch with one state and nobody takes the state anew; the killed one, restarted from what it had,
is in step within two epochs.
"""

from enum import StrEnum

import pytest

from protocols.manifest import Manifest
from protocols.round.order import order
from tests.peer.mortal import Fate, Point, mortal
from tests.peer.simulated_swarm import (
    SimulatedPeer,
    SimulatedSwarm,
    check_nobody_was_charged,
    data_parallel,
    identity,
    local_sgd,
    simulate,
)

VICTIM = 3
PARAMETERS = 60 * 256
"""64 chunks: 16 for each of four owners, 21 or 22 for each of three."""
TOGETHER = 3
"""By this epoch all four have found each other."""
FINISH_SECONDS = 30.0
"""In which the survivors are through with the epoch of the kill: a few deadlines, whatever has happened."""
IN_STEP_EPOCHS = 2


pytestmark = pytest.mark.usefixtures("every_chunk_in_a_frame_of_its_own")


class Role(StrEnum):
    LEADER = "leader"
    """Of the epoch; it owns a part as well."""
    OWNER = "owner"
    """Of a part, not the leader."""
    SENDER = "sender"
    """In client mode: it owns nothing."""


LEADER, OWNER, SENDER = Role
KILLS = [
    *((role, Point.UNCOMMITTED, 1) for role in Role),
    *((role, Point.SENT, chunks) for role in Role for chunks in (1, 20, 40)),
    *((role, Point.SERVED, chunks) for role in (LEADER, OWNER) for chunks in (1, 20, 40)),
    *((SENDER, Point.RECEIVED, chunks) for chunks in (1, 20, 40)),
    *((role, Point.VOTED, 1) for role in Role),
    (LEADER, Point.DECIDED, 1),
]


def fatal_epoch(swarm: SimulatedSwarm, role: Role) -> int:
    """The next one, but for the one that may be under way, in which the victim has that role."""
    able = [peer.peer for peer in swarm.members if not peer.participant.profile.client_mode]
    victim = identity(VICTIM).peer_id
    epoch = max(peer.state.epoch for peer in swarm.members) + 1
    while (order(swarm.manifest.run_id, epoch, able)[0] == victim) is not (role is LEADER):
        epoch += 1
    return epoch


def has_role(victim: SimulatedPeer, role: Role, epoch: int) -> bool:
    """Whether it had that role when it died, as far as the round had come; before the close, who is to lead."""
    session = victim.participant._conversation.sessions.get(epoch)
    leads = (session.machine.leader or session.machine.favourite()) == victim.peer
    if session.machine.begin is None:
        return leads is (role is LEADER)
    owns = any(part.owner == victim.peer for part in session.machine.begin.parts)
    return (leads, owns) == (role is LEADER, role is not SENDER)


def kill(manifest: Manifest, role: Role, point: Point, count: int) -> None:
    """Kills the victim when it comes to `point` the count-th time, and restarts it."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        client_mode = role is SENDER
        fate = Fate(point, count, lambda: swarm.strike(victim))
        await swarm.start_all(VICTIM)
        victim = await swarm.start(VICTIM, client_mode=client_mode, make=mortal(fate))
        survivors = [peer for peer in swarm.members if peer is not victim]
        await swarm.until(lambda: all(p.state.epoch >= TOGETHER and in_group_of_all(p) for p in swarm.members), 60)
        fatal = fate.epoch = fatal_epoch(swarm, role)
        await swarm.until(fate.struck.is_set, within=60)
        assert has_role(victim, role, fatal)
        await swarm.bury(victim)

        skipped = [epochs_skipped(peer) for peer in survivors]
        await swarm.until(lambda: all(peer.state.epoch > fatal for peer in survivors), FINISH_SECONDS)
        again = await swarm.restart(victim, state=victim.state, client_mode=client_mode)
        await swarm.until(lambda: again.participant.joined, within=60)
        joined = again.state.epoch
        await swarm.until(lambda: in_group_of_all(again), within=60)
        back, _ = again.participant.last_round
        assert back <= joined + IN_STEP_EPOCHS
        await swarm.until(lambda: all(peer.state.epoch > back for peer in swarm.members), within=60)

        assert [epochs_skipped(peer) for peer in survivors] == skipped
        for epoch in range(fatal, back + 2):
            digests = {peer.digests[epoch] for peer in [*survivors, victim, again] if epoch in peer.digests}
            assert len(digests) == 1, f"epoch {epoch}"
        assert all(fatal + 1 in peer.digests for peer in survivors)
        check_nobody_was_charged(swarm)

    simulate(scenario, manifest, seed=count, parameters=PARAMETERS)


def in_group_of_all(peer: SimulatedPeer) -> bool:
    last = peer.participant.last_round
    return last is not None and len(last[1].done.body.members) == VICTIM + 1


def epochs_skipped(peer: SimulatedPeer) -> int:
    """Those that it did not play, because it took the swarm's state."""
    return peer.state.epoch - peer.participant.epochs_played


@pytest.mark.parametrize(("role", "point", "count"), KILLS, ids=lambda value: getattr(value, "name", str(value)))
def test_a_member_killed_in_a_round_costs_the_others_no_epoch(role: Role, point: Point, count: int) -> None:
    kill(data_parallel(epochs=1000), role, point, count)


@pytest.mark.parametrize("role", Role, ids=lambda role: role.name)
def test_a_member_killed_at_the_end_of_its_local_steps_costs_the_others_no_epoch(role: Role) -> None:
    """Another rule says there when the epoch closes; what follows is the same round."""
    kill(local_sgd(epochs=1000), role, Point.UNCOMMITTED, 1)
