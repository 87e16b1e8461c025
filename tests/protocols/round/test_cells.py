"""Cells: who is in which, who represents it, and that none counts twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from protocols.encoding import digest
from protocols.identity import Identity, PeerId
from protocols.manifest import Admission, Averaging, Manifest, Verification
from protocols.round.cells import (
    base_of,
    cell_of,
    draw_of_cells,
    epoch_of,
    first_of_each,
    heirs_of_each,
    mates,
    round_number,
)
from protocols.round.events import Heard, Lost, Represent, Send, Tick, Trained, UpdateReady
from protocols.round.machine import Phase, Round
from protocols.round.messages import Begin, Busy, Close, Progress, Ready, Standing, Wait
from protocols.round.order import first, order
from protocols.round.setting import Setting
from protocols.signed import Signer
from tests.peer.simulated_swarm import local_sgd

RUN = f"run-{'a' * 26}"
STATE = digest(b"state")
CELLS = 4
IDENTITIES = [Identity.from_seed(digest(f"cells {number}".encode())) for number in range(32)]
PEERS = [identity.peer_id for identity in IDENTITIES]
SIGNERS = {identity.peer_id: Signer(identity, RUN, 1) for identity in IDENTITIES}
NUMBER = round_number(3, 1, CELLS)


def of_cell(cell: int) -> list[PeerId]:
    return [peer for peer in PEERS if cell_of(STATE, CELLS, peer) == cell]


ME, ELSEWHERE = of_cell(0)[0], [cell[0] for cell in map(of_cell, range(1, CELLS))]


def of_cells(me: PeerId = ME, *, follows: bool = False) -> Setting:
    return Setting(
        run=RUN,
        epoch=NUMBER,
        base=STATE,
        me=me,
        target_samples=None,
        chunks=8,
        group_limit=CELLS,
        cells=CELLS,
        state=STATE,
        follows=follows,
    )


def says(sender: PeerId, body: Progress | Standing | Ready | Busy | Wait) -> Heard:
    return Heard(SIGNERS[sender].sign(body, NUMBER))


def progress(samples: int = 100, *, follows: bool = False) -> Progress:
    return Progress(
        base=STATE, samples=samples, complete=True, client_mode=False, samples_per_second=0.0, follows=follows
    )


def ready(weight: int = 100) -> Ready:
    return Ready(base=STATE, term=0, weight=weight, root=STATE, client_mode=False, speed=1.0, held_term=None, held=())


def representative(expected: list[PeerId]) -> Round:
    return Round(of_cells(), dict.fromkeys(expected, False), 0.0, electorate=PEERS)


# -- who is where -----------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**40), st.integers(0, 1), st.sampled_from([0, 2, 64]))
def test_rounds_are_numbered_by_epoch_and_level(epoch: int, level: int, cells: int) -> None:
    assert epoch_of(round_number(epoch, level, cells), cells) == epoch
    assert (round_number(epoch, 0, cells) == round_number(epoch, 1, cells)) is (cells == 0)
    assert round_number(epoch + 1, 0, cells) > round_number(epoch, 1, cells)


@given(st.binary(min_size=32, max_size=32), st.integers(2, 64))
def test_cells_part_the_members(state: bytes, cells: int) -> None:
    found = [cell_of(state, cells, peer) for peer in PEERS]
    assert all(0 <= cell < cells for cell in found)
    for peer, cell in zip(PEERS, found, strict=True):
        fellows = [other for other, its in zip(PEERS, found, strict=True) if its == cell and other != peer]
        assert mates(state, cells, peer, PEERS) == fellows
    assert len({base_of(state, cell) for cell in range(cells)} | {state}) == cells + 1


def test_another_state_makes_other_cells() -> None:
    assert any(cell_of(STATE, CELLS, peer) != cell_of(digest(b"next"), CELLS, peer) for peer in PEERS)


def test_each_cell_has_one_who_comes_first() -> None:
    first = first_of_each(RUN, NUMBER, STATE, CELLS, PEERS)
    assert sorted(cell_of(STATE, CELLS, peer) for peer in first) == list(range(CELLS))
    assert set(first_of_each(RUN, NUMBER, STATE, CELLS, reversed(PEERS))) == set(first)


def test_two_of_each_cell_may_speak_for_it_and_nobody_knows_who_before_the_state_is_known() -> None:
    everybody = dict.fromkeys(PEERS, False)
    heirs = heirs_of_each(of_cells().draw, NUMBER, STATE, CELLS, everybody)
    assert sorted(cell_of(STATE, CELLS, peer) for peer in heirs) == [cell for cell in range(CELLS) for _ in range(2)]
    assert set(first_of_each(of_cells().draw, NUMBER, STATE, CELLS, PEERS)) < set(heirs)
    others = [draw_of_cells(RUN, digest(f"state {number}".encode())) for number in range(32)]
    assert len({first(draw, NUMBER, PEERS) for draw in others}) > 8


def test_who_cannot_be_dialled_speaks_for_a_cell_of_such_members_only() -> None:
    clients = {peer: peer in of_cell(0) or peer == of_cell(1)[0] for peer in PEERS}
    heirs = heirs_of_each(of_cells().draw, NUMBER, STATE, CELLS, clients)
    assert {cell_of(STATE, CELLS, peer) for peer in heirs if clients[peer]} == {0}


def test_one_of_each_cell_is_of_different_cells() -> None:
    assert of_cells().are_of_different_cells([ME, *ELSEWHERE])
    assert not of_cells().are_of_different_cells(of_cell(1)[:2])


def test_only_its_members_are_admitted_to_the_round_of_a_cell() -> None:
    inner = Setting(
        run=RUN, epoch=6, base=base_of(STATE, 0), me=ME, target_samples=None, chunks=8, cells=CELLS, state=STATE
    )
    assert {peer for peer in PEERS if inner.admits(peer)} == set(of_cell(0))
    assert all(map(of_cells().admits, PEERS))


# -- the round of cells -----------------------------------------------------------------------------------------------


def test_who_only_asks_is_answered_and_not_waited_for() -> None:
    machine, other = representative(ELSEWHERE), of_cell(0)[1]
    [answer] = machine.handle(says(other, progress(0, follows=True)), 0.1)
    assert isinstance(answer, Send)
    assert answer.to == other
    assert isinstance(answer.body, Standing)
    assert other not in machine.peers


def test_who_has_spoken_for_its_cell_takes_the_place_of_whom_we_expected() -> None:
    [expected, actual, *_] = of_cell(1)
    machine = representative([expected, *ELSEWHERE[1:]])
    machine.handle(says(actual, progress()), 0.1)
    assert actual in machine.peers
    assert expected not in machine.peers


def test_who_is_named_by_its_follower_takes_its_place() -> None:
    [expected, actual, *_] = of_cell(1)
    machine = representative([expected, *ELSEWHERE[1:]])
    machine.handle(says(expected, Busy(term=0, leader=actual)), 0.1)
    assert actual in machine.peers
    assert expected not in machine.peers


def leads_among(others: list[PeerId]) -> Round:
    """Of a member that comes first in the order: it has what its cell has come to, and waits for these."""
    draw = of_cells().draw
    me = first(draw, NUMBER, PEERS)
    heirs = heirs_of_each(draw, NUMBER, STATE, CELLS, dict.fromkeys(PEERS, False))
    machine = Round(of_cells(me), dict.fromkeys(others, False), 0.0, electorate=heirs)
    machine.handle(Trained(100, complete=True, samples_per_second=0.0), 0.0)
    machine.handle(UpdateReady(STATE, 100), 0.0)
    return machine


def other_cells_in_order() -> list[list[PeerId]]:
    draw = of_cells().draw
    here = cell_of(STATE, CELLS, first(draw, NUMBER, PEERS))
    return [order(draw, NUMBER, of_cell(cell)) for cell in range(CELLS) if cell != here]


def test_the_next_of_its_cell_is_waited_for_when_a_representative_dies() -> None:
    """Not the others alone: the cell is there, and has to find out by itself."""
    [dead, heir, *_], *rest = other_cells_in_order()
    machine = leads_among([dead, *(cell[0] for cell in rest)])
    for cell in rest:
        machine.handle(says(cell[0], progress()), 0.1)
    [told] = machine.handle(Lost(dead), 0.2)
    assert isinstance(told, Send)
    assert (told.to, type(told.body)) == (heir, Standing)
    machine.handle(says(heir, Busy(term=0, leader=dead)), 0.3)  # it has not found out yet
    machine.handle(says(heir, Wait(term=0)), 0.3)
    machine.handle(Tick(), 1.0)
    assert machine.phase is Phase.GATHERING
    machine.handle(says(heir, progress()), 1.1)
    assert machine.phase is Phase.READY


def test_the_others_are_waited_for_where_most_cells_have_nobody_whom_we_reach() -> None:
    """It is rather us who cannot reach them: a cell that decided by itself would part from all others."""
    cells = other_cells_in_order()
    machine = leads_among([cell[0] for cell in cells])
    machine.handle(says(cells[0][0], progress()), 0.1)
    for cell in cells[1:]:
        for heir in cell[:2]:
            machine.handle(Lost(heir), 0.2)
    assert machine.phase is Phase.READY
    actions = machine.handle(says(machine.setting.me, ready()), 0.3) + machine.handle(says(cells[0][0], ready()), 0.3)
    assert not any(isinstance(action, Send) and isinstance(action.body, Begin) for action in actions)
    late = cells[1][1]
    [close, *_] = machine.handle(says(late, progress()), 1.0)
    assert isinstance(close, Send)
    assert isinstance(close.body, Close)
    begin, *_ = (action.body for action in machine.handle(says(late, ready()), 1.1) if isinstance(action, Send))
    assert isinstance(begin, Begin)


def test_nobody_names_who_represents_another_cell() -> None:
    stranger = of_cell(2)[1]
    machine = representative(ELSEWHERE)
    machine.handle(says(ELSEWHERE[0], Busy(term=0, leader=stranger)), 0.1)
    assert stranger not in machine.peers


def test_nobody_holds_the_cells_up_by_naming_one_representative_after_the_other() -> None:
    """Each is made up, may come first in the order, and is asked and waited for in its turn."""
    liar = of_cell(1)[0]
    machine = representative(ELSEWHERE)
    made_up = [Identity.from_seed(digest(f"made up {number}".encode())).peer_id for number in range(200)]
    of_its_cell = [peer for peer in made_up if cell_of(STATE, CELLS, peer) == 1]
    for peer in of_its_cell:
        machine.handle(says(liar, Busy(term=0, leader=peer)), 0.1)
    assert of_its_cell[-1] not in machine.peers


def test_of_two_of_one_cell_one_counts() -> None:
    """Who has more samples behind it."""
    draw = of_cells().draw
    me, *others = order(draw, NUMBER, first_of_each(draw, NUMBER, STATE, CELLS, PEERS))
    second = mates(STATE, CELLS, others[0], PEERS)[0]
    machine = Round(of_cells(me), dict.fromkeys(others, False), 0.0, electorate=PEERS)
    machine.handle(Trained(100, complete=True, samples_per_second=0.0), 0.0)
    for peer in (second, *others):
        machine.handle(says(peer, progress()), 0.1)
    assert machine.leader == me
    machine.handle(UpdateReady(STATE, 100), 0.2)
    weights = {me: 100, second: 70, others[0]: 50, others[1]: 100, others[2]: 100}
    actions = [act for peer, weight in weights.items() for act in machine.handle(says(peer, ready(weight)), 0.3)]
    [begin, *_] = [action.body for action in actions if isinstance(action, Send) and isinstance(action.body, Begin)]
    assert {member.peer for member in begin.members} == {me, second, *others[1:]}


def test_a_follower_takes_no_part_and_says_who_does() -> None:
    heir = of_cell(0)[1]
    machine = Round(of_cells(follows=True), {heir: False}, 0.0, electorate=PEERS)
    machine.suspected.clear()
    if machine.favourite() == ME:  # the order is drawn: let it be the other's turn
        machine = Round(of_cells(heir, follows=True), {ME: False}, 0.0, electorate=PEERS)
        heir = ME
    [answer] = machine.handle(Heard(SIGNERS[ELSEWHERE[0]].sign(Close(base=STATE, term=0), NUMBER)), 0.1)
    assert isinstance(answer, Send)
    assert answer.body == Busy(term=0, leader=heir)
    assert machine.phase is Phase.GATHERING
    assert ELSEWHERE[0] not in machine.peers


def test_a_follower_whom_nobody_precedes_is_to_represent_its_cell() -> None:
    machine = Round(of_cells(follows=True), {}, 0.0, electorate=PEERS)
    assert machine.handle(Tick(), 0.1) == [Represent()]


# -- manifests --------------------------------------------------------------------------------------------------------


def test_one_cell_is_refused() -> None:
    with pytest.raises(ValidationError, match="one cell is no level of its own"):
        Averaging(cells=1)


def test_fewer_cells_than_the_quorum_are_refused() -> None:
    with pytest.raises(ValidationError, match="3 cells are fewer than the quorum of 5"):
        Averaging(cells=3, rule="median", byzantine=2, quorum=5)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"verification": Verification(validators=1)}, "validators needs averaging.cells = 0"),
        ({"admission": Admission(probation_epochs=3)}, "probation_epochs needs averaging.cells = 0"),
    ],
)
def test_what_two_levels_do_not_serve_is_refused(change: dict[str, object], why: str) -> None:
    given = local_sgd().model_dump() | {"averaging": Averaging(cells=CELLS)} | change
    with pytest.raises(ValidationError, match=why):
        Manifest.model_validate(given)
