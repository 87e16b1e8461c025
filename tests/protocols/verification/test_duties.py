"""Who checks whom: everybody with the seed agrees, nobody checks itself, and all are checked in the long run."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from protocols.encoding import digest
from protocols.identity import Identity
from protocols.round.messages import Begin, Member, Part
from protocols.verification.duties import CHUNKS_OF_A_PART, duties

PEERS = [Identity.from_seed(bytes([number]) * 32).peer_id for number in range(1, 17)]


def begin_of(members: int, idle: int = 0) -> Begin:
    """Each owns three chunks; the first `idle` send nothing."""
    return Begin(
        base=digest(b"base"),
        term=0,
        members=tuple(
            Member(peer=peer, weight=0 if number < idle else 5, root=None if number < idle else digest(peer.encode()))
            for number, peer in enumerate(PEERS[:members])
        ),
        parts=tuple(Part(owner=peer, start=3 * n, stop=3 * n + 3) for n, peer in enumerate(PEERS[:members])),
    )


@given(st.binary(min_size=32, max_size=32), st.integers(1, 16), st.integers(0, 3), st.integers(0, 20))
def test_duties_are_fair(seed: bytes, members: int, idle: int, validators: int) -> None:
    begin = begin_of(members, min(idle, members))
    found = duties(seed, begin, PEERS[:members], validators)
    assert found == duties(seed, begin, PEERS[:members], validators)
    assert len(found) == min(validators, max(1, members // 2))
    assert len({duty.validator for duty in found}) == len(found)
    senders = [duty.sender for duty in found if duty.sender is not None]
    parts = [duty.part for duty in found if duty.part is not None]
    assert len(set(senders)) == len(senders)
    assert len(set(parts)) == len(parts)
    contributing = {member.peer for member in begin.members if member.weight}
    for duty in found:
        assert duty.sender != duty.validator
        assert duty.sender is None or duty.sender in contributing
        assert all(0 <= chunk < 3 * members for chunk in duty.chunks)
        if duty.part is not None:
            assert PEERS[duty.part] != duty.validator
            assert 1 <= len(duty.part_chunks) <= CHUNKS_OF_A_PART
            assert all(3 * duty.part <= chunk < 3 * duty.part + 3 for chunk in duty.part_chunks)


def test_everybody_is_checked_about_as_often() -> None:
    counts: Counter[str] = Counter()
    for number in range(400):
        for duty in duties(digest(bytes([number % 256, number // 256])), begin_of(8), PEERS[:8], 2):
            counts[f"validator {duty.validator}"] += 1
            counts[f"sender {duty.sender}"] += 1
            counts[f"part {duty.part}"] += 1
    assert len(counts) == 3 * 8
    assert min(counts.values()) > 60  # of 100 each
    assert max(counts.values()) < 140


def test_nobody_to_check_is_no_duty() -> None:
    (duty,) = duties(digest(b"seed"), begin_of(1), PEERS[:1], 3)
    assert (duty.sender, duty.part) == (None, None)
