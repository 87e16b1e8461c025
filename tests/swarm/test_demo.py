"""The built-in run between real processes, found without any option."""

from tests.swarm.processes import LISTEN, Swarm, finished


def test_four_daemons_started_together_are_one_swarm_and_end_with_one_model(swarm: Swarm) -> None:
    daemons = [swarm.daemon(f"peer{number}").start("demo", *LISTEN) for number in range(4)]
    ends = [daemon.wait("at the run's end", finished, 240) for daemon in daemons]
    digests = {end["self"]["state_digest"] for end in ends}
    assert len(digests) == 1
    assert {end["self"]["epoch"] for end in ends} == {ends[0]["run"]["total_epochs"]}
    contributed = [end["self"]["samples_contributed"] for end in ends]
    assert min(contributed) >= 0.1 * sum(contributed), contributed
    assert all(end["run"]["evaluation"]["accuracy"] >= 0.95 for end in ends)
    assert all(len(end["peers"]) == 3 for end in ends)
