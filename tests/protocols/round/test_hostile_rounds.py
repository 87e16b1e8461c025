"""The round's state machine against members that speak well-formed words in bad faith."""

import pytest

from protocols.encoding import digest
from protocols.identity import PeerId
from protocols.message import Message
from protocols.round.deadlines import Timing
from protocols.round.events import (
    Action,
    Decided,
    Exchange,
    FinishUpdate,
    Heard,
    Lost,
    Send,
    Tick,
    Trained,
    UpdateReady,
)
from protocols.round.machine import Phase, Round
from protocols.round.messages import (
    Begin,
    Busy,
    Close,
    Done,
    Member,
    Part,
    PartResult,
    Prepared,
    Progress,
    Ready,
    Reassign,
    Standing,
    Wait,
)
from protocols.round.order import order
from protocols.round.patience import MOST_MOVES, PATIENCE
from protocols.round.setting import Setting
from protocols.signed import Signed
from tests.protocols.round.simulation import BASE, PEERS, RUN

EPOCH = 7
CHUNKS = 16
TIMING = Timing()
LEADER, *FOLLOWERS = order(RUN, EPOCH, PEERS[:5])
ME = FOLLOWERS[1]
STRANGERS = PEERS[10:13]
RESULTS = (PartResult(start=0, stop=CHUNKS, digest=digest(b"forged")),)


ALL = [LEADER, *FOLLOWERS]
FIRST_STRANGER = order(RUN, EPOCH, PEERS[5:])[0]
"""Comes before all members in the order."""


class Victim:
    """The second follower of five, with a clock."""

    def __init__(
        self,
        me: PeerId = ME,
        target_samples: int | None = 1000,
        electorate: list[PeerId] | None = None,
        elders: tuple[PeerId, ...] = (),
    ) -> None:
        others = {peer: False for peer in [LEADER, *FOLLOWERS] if peer != me}
        setting = Setting(run=RUN, epoch=EPOCH, base=BASE, me=me, target_samples=target_samples, chunks=CHUNKS)
        self.machine = Round(setting, others, 0.0, electorate=electorate, elders=elders)
        self.now, self._sequence = 0.0, 0

    def hear(self, sender: PeerId, body: Message, relayed_by: PeerId | None = None) -> list[Action]:
        self._sequence += 1
        statement = Signed(RUN, sender, EPOCH, self._sequence, body, b"")
        actions = self.machine.handle(Heard(statement, relayed_by), self.now)
        if any(isinstance(action, FinishUpdate) for action in actions):
            actions += self.machine.handle(UpdateReady(digest(b"root"), 5), self.now)
        return actions

    def tick(self, seconds: float = 0.2) -> list[Action]:
        self.now += seconds
        return self.machine.handle(Tick(), self.now)


def begin(members: list[PeerId], owner: PeerId, term: int = 0) -> Begin:
    return Begin(
        base=BASE,
        term=term,
        members=tuple(Member(peer=peer, weight=5, root=digest(b"root")) for peer in members),
        parts=(Part(owner=owner, start=0, stop=CHUNKS),),
    )


def ready(term: int) -> Ready:
    return Ready(
        base=BASE, term=term, weight=5, root=digest(b"root"), client_mode=False, speed=1.0, held_term=None, held=()
    )


def done(members: list[PeerId], results: tuple[PartResult, ...] = RESULTS) -> Done:
    return Done(base=BASE, term=0, members=tuple(members), results=results, votes=(b"checked by the driver",))


def test_what_those_decide_who_were_there_before_us_stands_though_others_have_come_since() -> None:
    """Where nobody has made the state yet; else two newcomers who know of each other would go on without the first."""
    victim = Victim(elders=(LEADER,))
    assert any(isinstance(action, Decided) for action in victim.hear(LEADER, done([LEADER])))
    victim = Victim()
    assert not any(isinstance(action, Decided) for action in victim.hear(LEADER, done([LEADER])))
    victim = Victim(elders=(LEADER, FOLLOWERS[0]))
    assert not any(isinstance(action, Decided) for action in victim.hear(LEADER, done([LEADER])))
    assert not any(isinstance(action, Decided) for action in victim.hear(STRANGERS[0], done(STRANGERS)))


@pytest.mark.parametrize(
    "members",
    [
        [LEADER],
        [LEADER, FOLLOWERS[0]],
        [*STRANGERS],
        [*STRANGERS, ME],
        [LEADER, *STRANGERS, ME],
    ],
    ids=["one", "two of five", "strangers", "strangers and us", "one, strangers and us"],
)
def test_done_of_a_group_that_is_not_most_of_those_we_know_decides_nothing(members: list[PeerId]) -> None:
    victim = Victim()
    assert not any(isinstance(action, Decided) for action in victim.hear(members[0], done(members)))
    assert victim.machine.phase is Phase.GATHERING


def test_done_of_another_group_than_the_leader_named_decides_nothing() -> None:
    victim = Victim()
    victim.hear(LEADER, Close(base=BASE, term=0))
    victim.hear(LEADER, begin([LEADER, *FOLLOWERS], LEADER))
    victim.hear(FOLLOWERS[3], done([LEADER, FOLLOWERS[0], ME]))
    assert victim.machine.phase is Phase.EXCHANGING
    assert victim.machine.leader == LEADER


def test_done_of_most_decides() -> None:
    victim = Victim()
    assert any(isinstance(action, Decided) for action in victim.hear(LEADER, done([LEADER, *FOLLOWERS])))


def test_done_of_few_decides_once_most_of_those_we_know_go_on_with_it() -> None:
    victim = Victim(electorate=ALL)
    others = [peer for peer in FOLLOWERS if peer != ME]
    few = done([LEADER])
    for relay in (LEADER, others[0], *STRANGERS, others[0], LEADER):
        victim.hear(LEADER, few, relay)
        assert victim.machine.phase is Phase.GATHERING, "these are two of the four others"
    victim.hear(LEADER, few, others[1])
    assert victim.machine.done is not None
    assert victim.machine.done.body == few


def test_who_goes_on_with_one_thing_after_the_other_counts_for_the_last_alone() -> None:
    victim = Victim(electorate=ALL)
    first, second, third = (peer for peer in FOLLOWERS if peer != ME)
    other = (PartResult(start=0, stop=CHUNKS, digest=digest(b"forged, too")),)
    victim.hear(first, done([first]), second)
    victim.hear(second, done([second], other))
    victim.hear(first, done([first]), third)
    assert victim.machine.phase is Phase.GATHERING, "only the first and the third go on with it now"


@pytest.mark.parametrize("alive", [False, True])
def test_done_that_overtakes_its_begin_decides_when_those_it_leaves_out_are_dead(alive: bool) -> None:
    """As our leader may name the group of the living, before we know who is dead."""
    victim = Victim(electorate=[LEADER, *FOLLOWERS])
    victim.hear(LEADER, Close(base=BASE, term=0))
    decided = False
    while not decided and victim.machine.leader == LEADER and victim.now < 100:
        decided = any(isinstance(action, Decided) for action in victim.hear(LEADER, done([LEADER, ME])))
        assert not decided or victim.now > TIMING.failure
        for follower in FOLLOWERS if alive else []:
            if follower != ME:
                victim.hear(follower, Standing(base=BASE, samples=1))
        for _ in range(5):
            victim.tick()
    assert decided is not alive


@pytest.mark.parametrize(
    ("sender", "members"), [(FOLLOWERS[0], [LEADER, ME]), (LEADER, [LEADER])], ids=["not the leader's", "without us"]
)
def test_done_that_no_begin_could_precede_decides_nothing(sender: PeerId, members: list[PeerId]) -> None:
    victim = Victim()
    victim.hear(LEADER, Close(base=BASE, term=0))
    assert not any(isinstance(action, Decided) for action in victim.hear(sender, done(members)))
    assert victim.machine.done is None


def test_done_of_most_without_us_decides_though_their_leader_has_closed_for_us_too() -> None:
    """A joiner that still fetched the last epoch when they began: they went on without it."""
    victim = Victim()
    victim.hear(LEADER, Close(base=BASE, term=0))
    assert any(isinstance(a, Decided) for a in victim.hear(LEADER, done([p for p in [LEADER, *FOLLOWERS] if p != ME])))


@pytest.mark.parametrize("who_begins", [FOLLOWERS[0], STRANGERS[0]])
def test_begin_and_reassign_count_from_the_leader_alone(who_begins: PeerId) -> None:
    victim = Victim()
    victim.hear(LEADER, Close(base=BASE, term=0))
    victim.hear(who_begins, begin([LEADER, *FOLLOWERS], who_begins))
    assert victim.machine.phase is Phase.READY
    victim.hear(LEADER, begin([LEADER, *FOLLOWERS], LEADER))
    assert not victim.hear(who_begins, Reassign(term=0, part=0, attempt=1, owner=who_begins))


def test_part_is_never_given_to_a_stranger() -> None:
    victim = Victim()
    victim.hear(LEADER, Close(base=BASE, term=0))
    assert any(isinstance(a, Exchange) for a in victim.hear(LEADER, begin([LEADER, *FOLLOWERS], LEADER)))
    assert not victim.hear(LEADER, Reassign(term=0, part=0, attempt=1, owner=STRANGERS[0]))


def wait_until_given_up(victim: Victim, says: Message) -> float:
    """Seconds until the victim follows another, though its leader says `says` every second."""
    began = victim.now
    while victim.machine.leader == LEADER and victim.now < began + 1000:
        victim.hear(LEADER, says)
        for _ in range(5):
            victim.tick()
    return victim.now - began


def test_leader_that_never_begins_is_given_up() -> None:
    victim = Victim()
    victim.hear(LEADER, Close(base=BASE, term=0))
    assert wait_until_given_up(victim, Wait(term=0)) == pytest.approx(PATIENCE * TIMING.failure, abs=2)
    victim.hear(LEADER, Close(base=BASE, term=victim.machine.term + 1))
    assert victim.machine.leader != LEADER


def test_leader_that_closes_term_after_term_is_given_up() -> None:
    victim = Victim()
    for term in range(100):
        victim.hear(LEADER, Close(base=BASE, term=term))
    assert victim.machine.term < MOST_MOVES
    assert wait_until_given_up(victim, Close(base=BASE, term=101)) <= 2 * PATIENCE * TIMING.failure


def test_favourite_that_never_closes_is_given_up() -> None:
    victim = Victim()
    victim.machine.handle(Trained(1000, False, 10.0), 0.0)
    sent_to: set[PeerId] = set()
    while LEADER not in victim.machine.suspected and victim.now < 1000 and len(sent_to) < 2:
        victim.hear(LEADER, Standing(base=BASE, samples=1))
        for _ in range(5):
            sent_to |= {a.to for a in victim.tick() if isinstance(a, Send) and isinstance(a.body, Progress)}
    assert sent_to == {LEADER, FOLLOWERS[0]}
    assert victim.now <= 2 * PATIENCE * TIMING.failure


def test_busy_does_not_move_a_leader_for_ever() -> None:
    victim = Victim(me=LEADER)
    victim.machine.handle(Trained(1000, False, 10.0), 0.0)
    victim.tick()
    for _ in range(200):
        victim.hear(FOLLOWERS[0], Busy(term=victim.machine.term + 1, leader=LEADER))
        victim.hear(STRANGERS[0], Busy(term=victim.machine.term, leader=STRANGERS[0]))
    assert victim.machine.term <= 4 * MOST_MOVES


def test_members_that_claim_all_the_samples_are_counted_up_to_a_limit() -> None:
    victim = Victim(me=LEADER, target_samples=None)
    most = Progress(base=BASE, samples=2**53, complete=False, client_mode=False, samples_per_second=1.0)
    for peer in FOLLOWERS:
        answers = victim.hear(peer, most)
        assert any(isinstance(action, Send) and isinstance(action.body, Standing) for action in answers)


def test_vote_for_nothing_is_no_vote() -> None:
    victim = Victim(me=LEADER)
    victim.machine.handle(Trained(1000, False, 10.0), 0.0)
    victim.tick()
    victim.hear(STRANGERS[0], Prepared(base=BASE, term=victim.machine.term, results=RESULTS))
    assert victim.machine.done is None


# -- strangers, and members whose turn it is not ----------------------------------------------------------------------


def test_the_first_stranger_would_lead_if_it_might() -> None:
    assert order(RUN, EPOCH, [*ALL, FIRST_STRANGER])[0] == FIRST_STRANGER


@pytest.mark.parametrize("sender", [FIRST_STRANGER, STRANGERS[0], FOLLOWERS[2]], ids=["first", "stranger", "follower"])
@pytest.mark.parametrize("me", [ME, LEADER], ids=["follower", "leader"])
def test_close_of_who_does_not_lead_ends_no_epoch(me: PeerId, sender: PeerId) -> None:
    if (me, sender) == (LEADER, FOLLOWERS[2]):
        return  # it says that it has given us up, and may do so
    victim = Victim(me, electorate=ALL)
    for term in range(3):
        victim.hear(sender, Close(base=BASE, term=term))
        victim.hear(sender, begin([sender, me], sender, term))
    assert victim.machine.phase is Phase.GATHERING


@pytest.mark.parametrize("sender", [FIRST_STRANGER, STRANGERS[0]])
def test_ready_of_a_stranger_ends_no_epoch(sender: PeerId) -> None:
    victim = Victim(me=LEADER, electorate=ALL)
    victim.hear(sender, ready(term=0))
    victim.hear(sender, ready(term=3))
    assert victim.machine.phase is Phase.GATHERING


def test_a_stranger_is_not_followed_for_anybodys_word() -> None:
    victim = Victim(me=LEADER, electorate=ALL)
    victim.machine.handle(Trained(1000, False, 10.0), 0.0)
    victim.tick()
    victim.hear(FOLLOWERS[0], Busy(term=1, leader=FIRST_STRANGER))
    assert victim.machine.leader == LEADER


@pytest.mark.parametrize("phase", [Phase.READY, Phase.EXCHANGING])
def test_close_of_a_stranger_takes_nobody_over(phase: Phase) -> None:
    victim = Victim(electorate=ALL)
    victim.hear(LEADER, Close(base=BASE, term=0))
    if phase is Phase.EXCHANGING:
        victim.hear(LEADER, begin(ALL, LEADER))
    victim.machine.handle(Lost(LEADER), victim.now)
    victim.hear(FIRST_STRANGER, Close(base=BASE, term=5))
    assert victim.machine.leader == FOLLOWERS[0]


def test_newcomers_lead_when_no_member_lives() -> None:
    victim = Victim(me=FIRST_STRANGER, electorate=ALL)
    for peer in ALL:
        victim.machine.handle(Lost(peer), 0.0)
    assert victim.machine.favourite() == FIRST_STRANGER


def test_group_that_leaves_out_most_who_live_is_none_and_its_leader_is_given_up() -> None:
    victim = Victim(electorate=ALL)
    victim.hear(LEADER, Close(base=BASE, term=0))
    while victim.machine.leader == LEADER and victim.now < 60:
        actions = victim.hear(LEADER, begin([LEADER, ME, *STRANGERS], LEADER))
        assert victim.machine.phase is Phase.READY
        asked = [action.to for action in actions if isinstance(action, Send) and isinstance(action.body, Progress)]
        for peer in asked:
            victim.hear(peer, Standing(base=BASE, samples=1))
        for _ in range(5):
            victim.tick()
    assert victim.machine.begin is None
    assert victim.machine.leader == FOLLOWERS[0]
    assert victim.now < 2 * TIMING.failure


def test_group_of_those_who_are_left_is_one_when_the_others_do_not_answer() -> None:
    victim = Victim(electorate=ALL)
    victim.hear(LEADER, Close(base=BASE, term=0))
    while victim.machine.phase is Phase.READY and victim.now < 60:
        victim.hear(LEADER, begin([LEADER, ME], LEADER))
        victim.hear(LEADER, Wait(term=0))
        for _ in range(5):
            victim.tick()
    assert victim.machine.phase is Phase.EXCHANGING
    assert victim.now < 1.5 * TIMING.failure


def test_done_is_believed_after_an_outage_in_which_all_seemed_dead() -> None:
    victim = Victim(electorate=ALL)
    for peer in [LEADER, *FOLLOWERS]:
        victim.machine.handle(Lost(peer), victim.now)
    assert any(isinstance(action, Decided) for action in victim.hear(LEADER, done(ALL)))
