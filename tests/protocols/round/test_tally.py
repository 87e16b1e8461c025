"""What a follower makes of its leader's word on how far the swarm is."""

from protocols.round.electorate import Electorate
from protocols.round.setting import Setting
from protocols.round.tally import Tally
from tests.peer.simulated_swarm import identity

ME, *OTHERS = [identity(number).peer_id for number in range(10)]


def tally(target: int) -> Tally:
    setting = Setting(run="run", epoch=3, base=bytes(32), me=ME, target_samples=target, chunks=12)
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
            ours.hear_standing(10 * tenth, now)
            said.append(now)
    assert len(said) < 20
    assert said[-1] == 10.0
    assert sum(now > 5 for now in said) > sum(now <= 5 for now in said)


def test_who_has_not_heard_for_long_takes_the_swarm_to_have_gone_on() -> None:
    ours = tally(1000)
    ours.hear_standing(100, 1.0)
    ours.hear_standing(200, 2.0)
    ours.own.samples = 20
    assert not ours.is_far_from_told(set(), 3.0)
    assert ours.is_far_from_told(set(), 6.0)


def test_a_leader_that_knows_less_than_the_one_before_makes_nobody_silent() -> None:
    ours = tally(1000)
    ours.hear_standing(500, 1.0)
    ours.hear_standing(100, 2.0)
    ours.own.samples = 50
    assert ours.is_far_from_told(set(), 100.0)
