"""The built-in run between real processes, found without any option."""

from tests.swarm.processes import Swarm, finished

LISTEN = ("--listen", "/ip4/127.0.0.1/tcp/0")


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


def test_a_joiner_in_mid_run_syncs_while_rounds_go_on_and_ends_bit_equal(swarm: Swarm) -> None:
    first = swarm.daemon("first").start("demo", *LISTEN)
    first.wait("at epoch 1", lambda status: status["run"]["epoch"] >= 1)
    joiner = swarm.daemon("joiner").start("demo", *LISTEN)
    joined = joiner.wait("training", lambda status: status["self"]["samples_contributed"] > 0)
    assert joined["self"]["epoch"] >= 1
    assert [member["name"] for member in joined["peers"]] == ["first"]
    ends = [daemon.wait("at the run's end", finished, 240) for daemon in (first, joiner)]
    assert ends[0]["self"]["state_digest"] == ends[1]["self"]["state_digest"]
    assert ends[1]["run"]["evaluation"]["accuracy"] >= 0.95
