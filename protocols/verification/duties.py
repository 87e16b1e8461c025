"""Which members check which others after a round: drawn by the round's seed, which nobody knew while it went on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from protocols.encoding import digest, encode
from protocols.identity import PeerId
from protocols.round.messages import Begin

CHUNKS_OF_A_SENDER = 4
"""So many chunks of its update are compared. Who leaves most of them as they are changes little, either."""
CHUNKS_OF_A_PART = 2
TRIED = 4
"""So many times as many are drawn, for where an owner does not show what it was sent."""
_DOMAIN = b"peer/1/duties\x00"
T = TypeVar("T", PeerId, int)


@dataclass(frozen=True, slots=True)
class Duty:
    """What one validator checks."""

    validator: PeerId
    sender: PeerId | None
    """Whose update it recomputes; None when there is none to check."""
    chunks: tuple[int, ...]
    """Of that update, in the order in which they are tried."""
    part: int | None
    """Which part it reduces once more …"""
    part_chunks: tuple[int, ...]
    """… and which chunks of it."""


def duties(seed: bytes, begin: Begin, owners: Sequence[PeerId], validators: int) -> tuple[Duty, ...]:
    """Those of a round. `owners`: of each part, the one who reduced it in the end.

    No two validators have the same sender or part, nobody checks itself, and at most half of the members are
    validators, so that most go on training meanwhile.
    """
    peers = [member.peer for member in begin.members]
    chosen = _shuffled(seed, "validators", peers)[: min(validators, max(1, len(peers) // 2))]
    senders = _shuffled(seed, "senders", [member.peer for member in begin.members if member.weight])
    parts = _shuffled(seed, "parts", range(len(begin.parts)))
    chunks = begin.parts[-1].stop if begin.parts else 0
    found = []
    for validator in chosen:
        sender = next((peer for peer in senders if peer != validator), None)
        part = next((number for number in parts if owners[number] != validator), None)
        senders = [peer for peer in senders if peer != sender]
        parts = [number for number in parts if number != part]
        whole = begin.parts[part] if part is not None else None
        found.append(
            Duty(
                validator,
                sender,
                _some(seed, f"chunks {validator}", 0, chunks, TRIED * CHUNKS_OF_A_SENDER),
                part,
                _some(seed, f"part {validator}", whole.start, whole.stop, CHUNKS_OF_A_PART) if whole else (),
            )
        )
    return tuple(found)


def _shuffled(seed: bytes, what: str, items: Iterable[T]) -> list[T]:
    return sorted(items, key=lambda item: digest(_DOMAIN, encode([seed, what, item])))


def _some(seed: bytes, what: str, start: int, stop: int, count: int) -> tuple[int, ...]:
    """At most `count` different numbers of start … stop − 1."""
    if stop <= start:
        return ()
    drawn = (digest(_DOMAIN, encode([seed, what, number])) for number in range(count))
    return tuple(dict.fromkeys(start + int.from_bytes(one[:8], "big") % (stop - start) for one in drawn))
