"""Five honest daemons and two that attack, over libp2p: who can be proved guilty is banned, and nobody else ever is."""

from pathlib import Path
from typing import Any

import pytest

from peer.misbehaviour import MODEL_ATTACKS, PROTOCOL_ATTACKS
from tests.swarm.processes import LISTEN, Swarm, finished
from tests.swarm.test_misbehaviour import HONEST, RECIPE

EPOCHS = 60
UNTIL_BANNED = 15
UNPROVED = ("withheld_part", "forged_sender", "replay", "inflated_samples", "excluding_leader", "sybil")
"""Refused, suspended or outvoted, never proved: the words of strangers are nobody's, and silence may be a bad line."""
PROVED = [*MODEL_ATTACKS, *(name for name in PROTOCOL_ATTACKS if name not in UNPROVED)]
VERIFICATION = """
[verification]
validators = 3
"""


def banned(status: dict[str, Any]) -> set[str]:
    return {member["name"] for member in status["peers"] if member["banned"]}


def bans_and_accuracy(attacks: tuple[str, str], swarm: Swarm, directory: Path) -> tuple[list[set[str]], int, float]:
    """Whom each of the honest has banned in the end, by which epoch all had banned them, and the least accuracy."""
    recipe = directory / "verified.toml"
    text = RECIPE.replace("EPOCHS", str(EPOCHS)).replace("QUORUM", str(HONEST)) + VERIFICATION
    recipe.write_text(text)
    honest = [swarm.daemon(f"honest-{number}") for number in range(HONEST)]
    run_id = swarm.command("run", "create", str(recipe), "--home", str(honest[0].home)).split()[0]
    honest[0].start(run_id, *LISTEN)
    attackers = [swarm.daemon(f"attacker-{number}") for number in range(len(attacks))]
    for daemon, attack in zip(attackers, attacks, strict=True):
        daemon.start(run_id, *LISTEN, "--misbehave", attack)
    for daemon in honest[1:]:
        daemon.start(run_id, *LISTEN)
    expected = {daemon.name for daemon in attackers} if set(attacks).isdisjoint(UNPROVED) else set()
    by_epoch = [
        daemon.wait("free of attackers", lambda status: banned(status) >= expected, 400)["run"]["epoch"]
        for daemon in honest
    ]
    ends = [daemon.wait("at the run's end", finished, 400) for daemon in honest]
    assert len({end["self"]["state_digest"] for end in ends}) == 1
    return [banned(end) for end in ends], max(by_epoch), min(end["run"]["evaluation"]["accuracy"] for end in ends)


def test_a_liar_and_a_wrong_owner_are_banned_by_all(swarm: Swarm, tmp_path: Path) -> None:
    bans, by_epoch, accuracy = bans_and_accuracy(("sign_flip", "wrong_part"), swarm, tmp_path)
    assert bans == [{"attacker-0", "attacker-1"}] * HONEST
    assert by_epoch <= 2 * UNTIL_BANNED  # counted from the run's beginning, before all were there
    assert accuracy >= 0.93


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("attack", [*PROVED, *UNPROVED])
def test_each_attack_beside_five_honest_daemons(attack: str, swarm: Swarm, tmp_path: Path) -> None:
    bans, by_epoch, accuracy = bans_and_accuracy((attack, attack), swarm, tmp_path)
    print(f"{attack}: banned {bans[0] or 'nobody'} by epoch {by_epoch}, accuracy {accuracy:.3f}")
    assert all(names <= {"attacker-0", "attacker-1"} for names in bans)
    assert accuracy >= 0.93
