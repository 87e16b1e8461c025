"""Rounds in two levels, for more members than fit into one group: cells of about √n, then one of each cell.

A cell is drawn by the state that the epoch starts from, so nobody can make an identity for the cell that it will be in.
The first round is among the members of a cell, from a base of the cell's own: what comes of it is no state, but the
cell's aggregate, which all its members hold. The second is from the state itself, among one member of each cell, its
`representative`, whose update is the cell's aggregate, weighted by the samples behind it; so the mean is that of all
members. The others of a cell stand by, follow what is decided, and the next in the order represents it when the one
before is silent.

The rounds of one run are numbered one after the other, so that no message of one is taken for one of another.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache

from protocols.encoding import digest, encode
from protocols.identity import PeerId
from protocols.round.order import first, order
from protocols.round.tables import PeerTable

LEVELS = 2
HEIRS = 2
"""So many of each cell, the first in the order, are believed to speak for it; the second, should the first be dead.
Were anybody believed, a few members could make up what all cells have decided."""
BASES_KEPT = 4
"""Of so many states it is remembered who is in which cell: epochs overlap a little, members that part."""


def round_number(epoch: int, level: int, cells: int) -> int:
    """Of the round of that level (0, 1) in that epoch; without cells there is one round an epoch, its own."""
    return LEVELS * epoch + level if cells else epoch


def epoch_of(number: int, cells: int) -> int:
    """In which epoch the round of that number is."""
    return number // LEVELS if cells else number


@lru_cache(maxsize=BASES_KEPT)
def _table(base: bytes, cells: int) -> PeerTable[int]:
    """Peer → its cell."""
    return PeerTable(lambda peer: int.from_bytes(digest(b"peer/1/cell\x00", base, encode([peer]))[:8], "big") % cells)


def cell_of(base: bytes, cells: int, peer: PeerId) -> int:
    """0 … cells − 1, in the epoch that starts from the state `base`."""
    return _table(base, cells)[peer]


def base_of(base: bytes, cell: int) -> bytes:
    """What the first round of a cell starts from."""
    return digest(b"peer/1/base-of-cell\x00", base, encode([cell]))


def mates(base: bytes, cells: int, me: PeerId, peers: Iterable[PeerId]) -> list[PeerId]:
    """Those of `peers` that are in our cell."""
    table = _table(base, cells)
    ours = table[me]
    return [peer for peer in peers if table[peer] == ours and peer != me]


def draw_of_cells(run: str, base: bytes) -> str:
    """What the order of the round of cells is drawn by, beside its number: not by the run alone, or identities could be
    tried in advance until they come first in it, whichever cells they are in."""
    return f"{run} {base.hex()}"


def first_of_each(draw: str, number: int, base: bytes, cells: int, peers: Iterable[PeerId]) -> list[PeerId]:
    """Who of `peers` represents each cell, as far as they are all that there is: the first of it in the order."""
    return [first(draw, number, members) for members in _by_cell(base, cells, peers)]


def heirs_of_each(draw: str, number: int, base: bytes, cells: int, peers: Mapping[PeerId, bool]) -> list[PeerId]:
    """The first HEIRS of each cell. `peers`: whether each is in client mode; those represent only others like them."""
    heirs: list[PeerId] = []
    for members in _by_cell(base, cells, peers):
        able = [peer for peer in members if not peers[peer]] or members
        heirs += order(draw, number, able)[:HEIRS]
    return heirs


def _by_cell(base: bytes, cells: int, peers: Iterable[PeerId]) -> Iterable[list[PeerId]]:
    by_cell: dict[int, list[PeerId]] = defaultdict(list)
    table = _table(base, cells)
    for peer in peers:
        by_cell[table[peer]].append(peer)
    return by_cell.values()
