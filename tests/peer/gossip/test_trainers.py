"""Who trains and how far: told word by word, it is what a count of all would say."""

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from peer.gossip.trainers import Trainers
from peer.roster import Member
from protocols.gossip.progress import Epochs, epoch_of_most
from protocols.identity import PeerId
from protocols.signed import Signed
from tests.peer.simulated_swarm import identity
from tests.peer.test_large_rosters import RUN, entry

END = 10
ME, *OTHERS = (identity(number).peer_id for number in range(6))


def member(peer: PeerId, epoch: int, **fields: Any) -> Member:
    body = entry(0.0).model_copy(update={"state_digest": b"\x01" * 32} | fields)
    return Member(Signed(RUN, peer, epoch, 1, body, b""), 0.0)


def trainers() -> Trainers:
    return Trainers(ME, client_mode=False, end=END)


@given(st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(0, 8)), max_size=40))
def test_epochs_that_come_one_by_one_are_counted_as_all_at_once(words: Sequence[tuple[int, int | None]]) -> None:
    epochs, known = Epochs(), dict[str, int]()
    for number, epoch in words:
        peer = PeerId(str(number))
        if epoch is None:
            epochs.drop(peer)
            known.pop(peer, None)
        else:
            epochs.put(peer, epoch)
            known[peer] = epoch
        assert epochs.of_most() == epoch_of_most(known.values())
        assert len(epochs) == len(known)


def test_who_has_a_state_is_in_the_graph_and_trains_until_the_end() -> None:
    others = trainers()
    others.hear(member(OTHERS[0], 3))
    others.hear(member(OTHERS[1], 3, state_digest=None))
    others.hear(member(OTHERS[2], END))
    others.hear(member(OTHERS[3], 3, role="monitor"))
    others.hear(member(OTHERS[4], 3, client_mode=True))
    assert others.mixing.peers == {ME, OTHERS[0], OTHERS[2], OTHERS[4]}
    assert others.mixing.clients == {ME: False, OTHERS[0]: False, OTHERS[2]: False, OTHERS[4]: True}
    assert [peer for peer in OTHERS if others.trains(peer)] == [OTHERS[0], OTHERS[4]]
    assert len(others) == 4


def test_what_changes_shows_and_what_does_not_makes_nothing_anew() -> None:
    others = trainers()
    others.hear(member(OTHERS[0], 3))
    before = others.mixing
    others.hear(member(OTHERS[0], 4))
    others.met(OTHERS[0], END)
    assert others.mixing is before, "rosters agree, whoever has heard that somebody is at the end"
    assert not others.trains(OTHERS[0])
    for change in (
        lambda: others.hear(member(OTHERS[1], 3)),
        lambda: others.hear(member(OTHERS[1], 3, client_mode=True)),
        lambda: others.forget(OTHERS[0]),
        lambda: others.hear(member(OTHERS[2], 3)),
        lambda: others.hear(member(OTHERS[2], 3, state_digest=None)),
    ):
        before = others.mixing
        change()
        assert others.mixing != before


def test_exchanges_say_how_far_somebody_is_before_words_do() -> None:
    others = trainers()
    others.hear(member(OTHERS[0], 3))
    others.met(OTHERS[0], 6)
    assert others.epoch_of_most == 6
    others.hear(member(OTHERS[0], 4))
    assert others.epoch_of_most == 6, "words overtake each other"


def test_strangers_who_exchange_are_not_kept() -> None:
    others = trainers()
    others.met(OTHERS[0], 6)
    assert others.epoch_of_most == 0
    assert len(others) == 0
