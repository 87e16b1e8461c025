"""A member's word is signed once and said to all, until it says something else or is a second old."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from dht.simulated import SimulatedNetwork, run_simulation
from peer.word import WORD_SECONDS, Word
from protocols.records import RosterEntry
from protocols.signed import Signer
from tests.peer.simulated_swarm import identity
from tests.peer.test_large_rosters import RUN, entry


def with_word(scenario: Callable[[SimulatedNetwork, Word, dict[str, Any]], Coroutine[Any, Any, None]]) -> None:
    """`scenario` gets a word, and what it says: fields of the entry, and the epoch."""

    async def main(network: SimulatedNetwork) -> None:
        says: dict[str, Any] = {"epoch": 0}

        def now() -> tuple[RosterEntry, int]:
            fields = {name: value for name, value in says.items() if name != "epoch"}
            return entry(0.0).model_copy(update=fields), says["epoch"]

        await scenario(network, Word(Signer(identity(0), RUN, 1), network.clock, now), says)

    run_simulation(main, seed=1)


def test_what_is_said_again_is_not_signed_again() -> None:
    async def scenario(network: SimulatedNetwork, word: Word, says: dict[str, Any]) -> None:
        first = word.say()
        says["samples_contributed"] = 50
        says["samples_per_second"] = 3.0
        assert word.say() is first
        await network.clock.sleep(WORD_SECONDS * 1.01)
        later = word.say()
        assert later.sequence > first.sequence
        assert later.body.expires > first.body.expires
        assert later.body.samples_contributed == 50

    with_word(scenario)


@pytest.mark.parametrize(
    ("field", "value"),
    [("epoch", 1), ("state_digest", b"\x03" * 32), ("directives", b"\x02" * 32), ("role", "monitor")],
)
def test_what_changes_is_said_at_once(field: str, value: object) -> None:
    async def scenario(_network: SimulatedNetwork, word: Word, says: dict[str, Any]) -> None:
        first = word.say()
        says[field] = value
        assert word.say().sequence > first.sequence
        said = word.say()
        assert (said.epoch if field == "epoch" else getattr(said.body, field)) == value

    with_word(scenario)


def test_a_departure_is_said_at_once() -> None:
    async def scenario(_network: SimulatedNetwork, word: Word, _says: dict[str, Any]) -> None:
        assert not word.say().body.departed
        word.departed = True
        assert word.say().body.departed

    with_word(scenario)
