"""What a status says, of simulated participants."""

from peer.view import epoch_of, status_of
from tests.peer.simulated_swarm import data_parallel, simulate

MANIFEST = data_parallel(epochs=5)


def test_a_monitor_sees_the_run_end_though_all_have_left():
    async def scenario(swarm):
        monitor = await swarm.start(0, role="monitor")
        trainer = await swarm.start(1)
        await swarm.until(lambda: epoch_of(monitor.participant) == 2, within=60)
        assert status_of(monitor.participant, monitor.peer).run.state == "training"
        await swarm.until(lambda: trainer.participant.finished, within=60)
        await swarm.leave(trainer)
        assert not len(monitor.participant.membership.roster)
        assert status_of(monitor.participant, monitor.peer).run.state == "finished"

    simulate(scenario, MANIFEST)
