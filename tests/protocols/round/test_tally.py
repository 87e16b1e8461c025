"""What a follower makes of its leader's word on how far the swarm is."""

from protocols.round.contributors import MOST_QUARRELS
from protocols.round.electorate import Electorate
from protocols.round.messages import Progress, Standing
from protocols.round.setting import Setting
from protocols.round.tally import Tally
from tests.peer.simulated_swarm import identity

ME, *OTHERS = [identity(number).peer_id for number in range(10)]


def tally(target: int, microbatches: int = 0) -> Tally:
    setting = Setting("run", 3, bytes(32), ME, target, 12, microbatches=microbatches)
    members = dict.fromkeys(OTHERS, False)
    return Tally(setting, Electorate(members, setting.group_limit, is_open=False), members)


def test_a_leader_hears_of_us_seldom_at_first_and_more_often_at_the_end() -> None:
    ours = tally(1000)  # of ten members, ten samples a second each
    said = []
    for tenth in range(1, 101):
        now = tenth / 10
        ours.own.samples = tenth
        if ours.is_far_from_told(set(), now):
            ours.told = tenth
            ours.hear_standing(Standing(base=bytes(32), samples=10 * tenth), now)
            said.append(now)
    assert len(said) < 20
    assert said[-1] == 10.0
    assert sum(now > 5 for now in said) > sum(now <= 5 for now in said)


def test_who_has_not_heard_for_long_takes_the_swarm_to_have_gone_on() -> None:
    ours = tally(1000)
    ours.hear_standing(Standing(base=bytes(32), samples=100), 1.0)
    ours.hear_standing(Standing(base=bytes(32), samples=200), 2.0)
    ours.own.samples = 20
    assert not ours.is_far_from_told(set(), 3.0)
    assert ours.is_far_from_told(set(), 6.0)


def test_a_leader_that_knows_less_than_the_one_before_makes_nobody_silent() -> None:
    ours = tally(1000)
    ours.hear_standing(Standing(base=bytes(32), samples=500), 1.0)
    ours.hear_standing(Standing(base=bytes(32), samples=100), 2.0)
    ours.own.samples = 50
    assert ours.is_far_from_told(set(), 100.0)


def progress(covered: bytes) -> Progress:
    return Progress(
        base=bytes(32), samples=0, complete=False, covered=covered, client_mode=False, samples_per_second=0.0
    )


def test_an_older_word_of_what_a_member_has_counted_changes_nothing() -> None:
    """Messages overtake each other; and who has thrown away what another has says to have less than before."""
    ours = tally(1000, microbatches=8)
    ours.hear_progress(OTHERS[0], progress(b"\x0f"), 1.0, sequence=5)
    ours.hear_progress(OTHERS[0], progress(b"\x01"), 1.1, sequence=4)
    assert ours.peers[OTHERS[0]].covered == b"\x0f"
    ours.hear_progress(OTHERS[0], progress(b""), 1.2, sequence=6)
    assert ours.peers[OTHERS[0]].covered == b""


def standing(covered: bytes) -> Standing:
    return Standing(base=bytes(32), samples=0, covered=covered)


def test_what_our_leader_hears_of_late_is_not_overlooked() -> None:
    """There is always something that it has not heard of yet; but each time something else."""
    ours = tally(1000, microbatches=8)
    for number in range(8):
        ours.own.count(0, bytes([(1 << number + 1) - 1]))
        ours.hear_standing(standing(bytes([(1 << number) - 1]).rstrip(b"\0")), number)
        assert not ours.is_overlooked()


def test_what_our_leader_never_hears_of_is_overlooked() -> None:
    ours = tally(1000, microbatches=8)
    ours.own.count(0, b"\x11")
    ours.hear_standing(standing(b"\x01"), 1.0)
    assert not ours.is_overlooked()
    ours.own.count(0, b"\x91")
    ours.hear_standing(standing(b"\x81"), 2.0)
    assert ours.is_overlooked()
    ours.hear_standing(standing(b"\x91"), 3.0)
    assert not ours.is_overlooked()


def test_who_is_refused_again_and_again_is_overlooked() -> None:
    """It throws away what it has counted each time, and nothing of it is missing then."""
    ours = tally(1000, microbatches=8)
    for _ in range(MOST_QUARRELS + 1):
        assert not ours.is_overlooked()
        ours.hear_standing(Standing(base=bytes(32), samples=0, refused=b"\x01"), 1.0)
    assert ours.is_overlooked()
    ours.forget_leader()
    assert not ours.is_overlooked()


def test_what_a_leader_said_long_ago_is_not_known_any_more() -> None:
    ours = tally(1000, microbatches=8)
    assert ours.counted(set(), 0.0, leads=False) is None
    ours.hear_standing(standing(b"\x01"), 1.0)
    assert ours.counted(set(), 2.0, leads=False) == b"\x01"
    assert ours.counted(set(), 60.0, leads=False) is None
    ours.own.count(0, b"\x02")
    assert ours.counted(set(), 60.0, leads=True) == b"\x02"
