"""Five honest daemons and two that attack, over libp2p: who can be proved guilty is banned, and nobody else ever is."""

from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from peer.misbehaviour import MODEL_ATTACKS, PROTOCOL_ATTACKS
from peer.misbehaviour.sybil import IDENTITIES, SYBIL
from protocols.identity import PeerId
from protocols.round.order import first
from tests.swarm.processes import LISTEN, Swarm, finished
from tests.swarm.test_misbehaviour import HONEST, RECIPE

EPOCHS = 60
UNTIL_BANNED = 15
"""Epochs, from the first in which all are there and each attacker can have attacked."""
END_SECONDS = 1000
"""For all epochs, where those in which a part is withheld take half a minute on a busy machine."""
UNPROVED = ("withheld_part", "forged_sender", "replay", "inflated_samples", "excluding_leader")
"""Refused, suspended or outvoted, never proved: the words of strangers are nobody's, and silence may be a bad line."""
BY_LEADERS = ("two_begins",)
"""Only who leads can lie so."""
PROVED = [*MODEL_ATTACKS, *(name for name in PROTOCOL_ATTACKS if name not in (*UNPROVED, SYBIL))]
VERIFICATION = """
[verification]
validators = 3
"""


def banned(status: dict[str, Any]) -> set[str]:
    return {member["peer_id"] for member in status["peers"] if member["banned"]}


def known(status: dict[str, Any]) -> set[str]:
    """The others, banned or not."""
    return {member["peer_id"] for member in status["peers"]}


def first_led(run: str, leader: PeerId, members: set[PeerId], epoch: int) -> int:
    """From this epoch on; sooner, where one of the others is banned by then."""
    return next(at for at in count(epoch) if first(run, at, members) == leader)


@dataclass(frozen=True)
class Outcome:
    honest: set[PeerId]
    attackers: set[PeerId]
    banned: list[set[str]]
    """By each of the honest, in the end."""
    by_epoch: int
    """Of the run, when all had banned whom they had to."""
    epochs: int
    """Until then, from the first in which all were there and each attacker could have attacked."""
    accuracy: float
    """The least."""


def play(attacks: tuple[str, str], swarm: Swarm, directory: Path, dialable: int = HONEST) -> Outcome:
    """`dialable`: of the honest; the others are in client mode."""
    recipe = directory / "verified.toml"
    text = RECIPE.replace("EPOCHS", str(EPOCHS)).replace("QUORUM", str(HONEST)) + VERIFICATION
    recipe.write_text(text)
    honest = [swarm.daemon(f"honest-{number}") for number in range(HONEST)]
    run_id = swarm.command("run", "create", str(recipe), "--home", str(honest[0].home)).split()[0]
    honest[0].start(run_id, *LISTEN)
    attackers = [swarm.daemon(f"attacker-{number}") for number in range(len(attacks))]
    for daemon, attack in zip(attackers, attacks, strict=True):
        daemon.start(run_id, *LISTEN, "--misbehave", attack)
    for number, daemon in enumerate(honest[1:], 1):
        daemon.start(run_id, *(LISTEN if number < dialable else ("--client-mode",)))
    names, ours = (
        {PeerId(swarm.command("id", "--home", str(daemon.home)).strip()) for daemon in daemons}
        for daemons in (attackers, honest)
    )
    members = names | ours
    all_there = honest[0].wait("among all members", lambda status: len(known(status) & members) == len(members) - 1)
    can_attack = [all_there["run"]["epoch"]]
    if not set(attacks).isdisjoint(BY_LEADERS):
        can_attack += [first_led(run_id, name, members, can_attack[0]) for name in names]
    expected = names if set(attacks).isdisjoint((*UNPROVED, SYBIL)) else set()
    by_epoch = [
        daemon.wait("free of attackers", lambda status: banned(status) >= expected, 400)["run"]["epoch"]
        for daemon in honest
    ]
    ends = [daemon.wait("at the run's end", finished, END_SECONDS) for daemon in honest]
    assert len({end["self"]["state_digest"] for end in ends}) == 1
    accuracy = min(end["run"]["evaluation"]["accuracy"] for end in ends)
    epochs = max(by_epoch) - max(can_attack)
    return Outcome(ours, names, [banned(end) for end in ends], max(by_epoch), epochs, accuracy)


@pytest.mark.timeout(600)
def test_a_liar_and_a_wrong_owner_are_banned_by_all(swarm: Swarm, tmp_path: Path) -> None:
    outcome = play(("sign_flip", "wrong_part"), swarm, tmp_path)
    assert outcome.banned == [outcome.attackers] * HONEST
    assert outcome.epochs <= UNTIL_BANNED
    assert outcome.accuracy >= 0.93


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_members_whom_nobody_can_dial_find_out_who_lies(swarm: Swarm, tmp_path: Path) -> None:
    """Most of the group hear two of the honest and the attackers alone."""
    outcome = play(("sign_flip", "label_flip"), swarm, tmp_path, dialable=2)
    assert outcome.banned == [outcome.attackers] * HONEST
    assert outcome.epochs <= UNTIL_BANNED
    assert outcome.accuracy >= 0.93


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("attack", [*PROVED, *UNPROVED])
def test_each_attack_beside_five_honest_daemons(attack: str, swarm: Swarm, tmp_path: Path) -> None:
    outcome = play((attack, attack), swarm, tmp_path)
    banned_by = [len(peers) for peers in outcome.banned]
    print(
        f"{attack}: {banned_by} banned by each, all by epoch {outcome.by_epoch}, {outcome.epochs} after all could"
        f" attack, accuracy {outcome.accuracy:.3f}"
    )
    assert outcome.epochs <= UNTIL_BANNED
    assert all(peers <= outcome.attackers for peers in outcome.banned)
    assert outcome.accuracy >= 0.93


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_who_joins_under_many_names_is_left_with_one(swarm: Swarm, tmp_path: Path) -> None:
    """Ten identities of two attackers are more than f; those that repeat what another has trained are all found out."""
    outcome = play((SYBIL, SYBIL), swarm, tmp_path)
    print(f"{SYBIL}: {list(map(len, outcome.banned))} banned by each, accuracy {outcome.accuracy:.3f}")
    assert all(len(peers - outcome.attackers) == 2 * IDENTITIES for peers in outcome.banned)
    assert not any(peers & outcome.honest for peers in outcome.banned)
