"""What the hour of churn does, and how it judges, without a daemon."""

import math
from random import Random

import pytest
from churn_logs import complaints
from churn_plan import VETERANS, Deed, assembly_seconds, plan_churn
from churn_samples import Sample
from churn_verdict import growth_percent_per_hour

MOST = 20
SECONDS = 3600.0


def sample(seconds: float, members: int = 15, open_files: int = 40) -> Sample:
    return Sample(
        seconds=seconds,
        daemon=VETERANS[0],
        memory_bytes=400_000_000,
        network_memory_bytes=90_000_000,
        open_files=open_files,
        network_open_files=30,
        threads=9,
        network_threads=8,
        tasks=30,
        lag_seconds=0.002,
        members=members,
        epoch=int(seconds / 6),
        digest="00" * 8,
        load=1.0,
    )


@pytest.mark.parametrize("seed", range(20))
def test_half_to_all_of_the_daemons_run_and_only_what_is_there_is_harmed(seed: int):
    up, frozen = set(), set()
    for event in plan_churn(Random(seed), SECONDS, MOST):
        match event.deed:
            case Deed.JOIN | Deed.RESTART:
                assert event.daemon not in up
                up.add(event.daemon)
            case Deed.LEAVE | Deed.KILL:
                up.remove(event.daemon)
                assert event.daemon not in frozen
            case Deed.FREEZE:
                assert event.daemon in up - frozen
                frozen.add(event.daemon)
            case Deed.THAW:
                frozen.remove(event.daemon)
        assert len(up) <= MOST
        assert event.seconds <= assembly_seconds(MOST) or len(up) >= MOST / 2
    assert set(VETERANS) <= up
    assert not frozen


def test_a_seed_names_one_plan_in_which_everything_happens_and_no_veteran_is_harmed():
    plan = plan_churn(Random(7), SECONDS, MOST)
    assert plan == plan_churn(Random(7), SECONDS, MOST)
    assert {event.deed for event in plan} == set(Deed)
    assert {event.deed for event in plan if event.daemon in VETERANS} == {Deed.JOIN}
    assert [event.seconds for event in plan] == sorted(event.seconds for event in plan)


def test_what_comes_and_goes_with_the_members_is_flat():
    growing = [sample(10.0 * n, members, 20 + members) for n in range(300) for members in [10 + n // 60 + n % 5]]
    assert growth_percent_per_hour(growing, "open_files") == 0.0


def test_a_leak_is_found_among_swings_and_outliers():
    leaking = [
        sample(10.0 * n, open_files=400 + n // 10 + round(9 * math.sin(n)) + (500 if n % 50 == 0 else 0))
        for n in range(300)
    ]
    assert growth_percent_per_hour(leaking, "open_files") == pytest.approx(36 / 415 * 100, rel=0.1)


def test_one_sample_tells_nothing():
    assert growth_percent_per_hour([sample(0.0)], "tasks") is None


def test_complaints_are_counted_and_what_is_said_in_passing_is_not(tmp_path):
    log = tmp_path / "peer1.log"
    log.write_text(
        '{"event": "left", "level": "info"}\n'
        '{"event": "the disk is full", "level": "warning"}\n'
        '{"event": "the disk is full", "level": "warning"}\n'
        "Traceback (most recent call last):\n"
        "12 members, epoch 3\n"
    )
    assert complaints([log]) == {"warning: the disk is full": 2, "Traceback (most recent call last):": 1}
