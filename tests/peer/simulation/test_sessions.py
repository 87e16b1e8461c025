"""When volunteers are there: sessions follow one another and have their distribution's mean; files are read as said."""

from itertools import pairwise
from math import gamma, inf
from pathlib import Path
from random import Random
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.errors import UsageError
from peer.simulation.plan import make_plan
from peer.simulation.scenario import World, read_scenario
from peer.simulation.sessions import Diurnal, Exponential, Presence, Weibull, draw_presences, read_presences
from tests.peer.simulation.scenarios import SMALL, write

DAY = 100.0
SESSIONS = st.sampled_from(
    [
        Exponential(kind="exponential", mean=30.0, absent=10.0),
        Weibull(kind="weibull", shape=0.5, scale=20.0, absent=5.0, crashes=0.5, until=400.0),
        Diurnal(kind="diurnal", day=DAY, awake=30.0, begins=[0.0, 50.0]),
    ]
)


@given(session=SESSIONS, seed=st.integers(0, 1000), first=st.floats(0, 50))
def test_sessions_follow_one_another_and_the_last_stays_after_the_end_of_churn(
    session: Exponential | Weibull | Diurnal, seed: int, first: float
) -> None:
    presences = list(draw_presences(session, first, 1000.0, Random(seed)))
    assert all(presence.begin < presence.end for presence in presences)
    assert all(earlier.end <= later.begin < 1000.0 for earlier, later in pairwise(presences))
    assert all(presence.end < session.until for presence in presences[:-1])
    if session.until < inf:
        assert presences[-1].end == inf
        assert presences[-1].begin <= max(first, session.until)


@pytest.mark.parametrize(
    ("session", "expected"),
    [
        (Exponential(kind="exponential", mean=30.0, absent=10.0), 30.0),
        (Weibull(kind="weibull", shape=0.6, scale=20.0, absent=10.0), 20.0 * gamma(1 + 1 / 0.6)),
    ],
)
def test_lengths_and_absences_have_their_means(session: Exponential | Weibull, expected: float) -> None:
    presences = list(draw_presences(session, 0.0, 300_000.0, Random(1)))
    absences = [later.begin - earlier.end for earlier, later in pairwise(presences)]
    assert mean(presence.end - presence.begin for presence in presences) == pytest.approx(expected, rel=0.08)
    assert mean(absences) == pytest.approx(10.0, rel=0.08)


def test_a_day_has_one_session_that_begins_at_the_volunteers_own_time() -> None:
    session = Diurnal(kind="diurnal", day=DAY, awake=10.0, begins=25.0)
    presences = list(draw_presences(session, 0.0, 10 * DAY, Random(1)))
    assert [presence.begin for presence in presences] == pytest.approx([25.0 + DAY * day for day in range(10)])


def test_a_file_says_who_is_there_when(tmp_path: Path) -> None:
    path = tmp_path / "sessions.csv"
    path.write_text("# peer,join,leave\n0,0,10,crash\n0,12,\n1,3,4\n7,0,1\n")
    assert read_presences(path, 2) == [[Presence(0.0, 10.0, True), Presence(12.0)], [Presence(3.0, 4.0)]]


@pytest.mark.parametrize(
    "line", ["0", "0,x,3", "0,5,3", "0,1,2,died", "0,0,4\n0,3,6", "0,nan,3", "0,1,nan", "0,inf,", "0,-1,3"]
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "sessions.csv"
    path.write_text(f"{line}\n")
    with pytest.raises(UsageError, match=rf"sessions\.csv:{line.count(chr(10)) + 1}: "):
        read_presences(path, 2)


@pytest.mark.parametrize("name", ["no.csv", "", "a\0b.csv", "large.csv"])
def test_a_file_that_cannot_be_read_gets_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "large.csv").write_text(f"0,0,{'1' * 200_000}\n")
    with pytest.raises(UsageError, match=r"cannot be read: ") as refused:
        read_presences(tmp_path / name, 2)
    assert "\n" not in str(refused.value)


def test_sessions_that_are_too_many_are_refused() -> None:
    short = Exponential(kind="exponential", mean=0.001, absent=0.001)
    with pytest.raises(UsageError, match="too short: a peer has more than 100,000"):
        list(draw_presences(short, 0.0, 1000.0, Random(1)))


def test_a_plan_takes_sessions_of_a_file_and_kills_whom_it_says(tmp_path: Path) -> None:
    (tmp_path / "sessions.csv").write_text("0,0,10\n1,0,\n2,0,\n3,8,\n")
    text = SMALL + 'session = { kind = "trace", file = "sessions.csv" }\n'
    text += "[[crashes]]\nat = 5\nshare = 1\nback_after = 2\n"
    scenario = read_scenario(write(tmp_path, text))
    plan = make_plan(scenario.world, scenario.directory, seed=1)
    killed, back = Presence(0.0, 5.0, True), [7.0, 10.0]
    assert plan.peers[0].presences == (killed, Presence(*back))
    assert plan.peers[1].presences == plan.peers[2].presences == (killed, Presence(7.0))
    assert plan.peers[3].presences == (Presence(8.0),)
    assert plan.quiet_from == 10.0


def test_equal_seeds_make_equal_plans() -> None:
    world = World.model_validate(
        {
            "seconds": 100.0,
            "peers": [
                {
                    "name": "all",
                    "count": 20,
                    "upload": [1, 9],
                    "joins": [0, 9],
                    "session": {"kind": "exponential", "mean": 9.0},
                }
            ],
            "partitions": [{"at": 10.0, "seconds": 5.0, "share": 0.3}],
            "crashes": [{"at": 20.0, "share": 0.5}],
        }
    )
    assert make_plan(world, Path(), 3) == make_plan(world, Path(), 3)
    assert make_plan(world, Path(), 3) != make_plan(world, Path(), 4)
