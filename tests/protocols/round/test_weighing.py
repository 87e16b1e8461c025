"""What owners observe of their parts: packed, opened, and put together; from the network it may be anything."""

import numpy as np
import pytest

from protocols.rejection import Reason, Rejected
from protocols.round.messages import Observed
from protocols.round.weighing import everywhere, open_weigh, pack, unpack, whole_gram
from tests.protocols.examples import EPOCH, MEMBERS, OTHER_RUN, observed, weigh


def gram(points: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(points, 20))
    return rows @ rows.T


@pytest.mark.parametrize("points", [1, 2, 17, 65])
def test_what_is_packed_comes_out_again(points: int) -> None:
    matrix = gram(points)
    assert (unpack(pack(matrix), points) == np.triu(matrix) + np.triu(matrix, 1).T).all()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.WRONG_SHAPE),
        (pack(gram(3)), Reason.WRONG_SHAPE),
        (pack(gram(4))[:-1], Reason.WRONG_SHAPE),
        (pack(np.full((4, 4), np.nan)), Reason.NON_FINITE),
        (pack(np.full((4, 4), np.inf)), Reason.NON_FINITE),
    ],
)
def test_what_is_no_matrix_of_so_many_points_is_refused(data: bytes, reason: Reason) -> None:
    with pytest.raises(Rejected) as refused:
        unpack(data, 4)
    assert refused.value.reason is reason


def test_a_weigh_opens_to_what_the_owners_have_said() -> None:
    first, second = observed(), observed(MEMBERS[1], part=1)
    assert open_weigh(weigh(first, second)) == (first, second)


@pytest.mark.parametrize(
    "statements",
    [
        (observed(part=1),),
        (observed(), observed(part=0)),
        (observed(term=1),),
        (observed(epoch=EPOCH + 1),),
        (observed(run=OTHER_RUN),),
        (observed(gram=pack(np.full((4, 4), np.nan))),),
    ],
    ids=["part", "twice", "term", "epoch", "run", "nan"],
)
def test_a_weigh_with_anything_else_in_it_is_refused(statements: tuple) -> None:
    with pytest.raises(Rejected):
        open_weigh(weigh(*statements))


def test_an_observation_is_of_those_whom_it_names() -> None:
    with pytest.raises(ValueError, match="each pair"):
        observed(gram=pack(np.eye(3)))


def test_only_who_is_there_in_all_parts_is_weighed() -> None:
    """And the distances are those over all parts, whoever else is there in some."""
    rows = np.random.default_rng(1).normal(size=(4, 30))
    origin = np.zeros((1, 30))

    def seen(members: list[int], columns: slice) -> Observed:
        points = np.vstack([rows[members], origin])[:, columns]
        included = sum(1 << member for member in members)
        return Observed(term=0, part=0, attempt=0, begin=bytes(32), included=included, gram=pack(points @ points.T))

    observations = [seen([0, 1, 2, 3], slice(0, 10)), seen([0, 2, 3], slice(10, 30))]
    assert everywhere(observations) == [0, 2, 3]
    points = np.vstack([rows[[0, 2, 3]], origin])
    np.testing.assert_allclose(whole_gram(observations, [0, 2, 3]), points @ points.T)
