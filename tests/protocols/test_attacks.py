"""The attacks are those of the papers, and what they are meant for: plain to see, or hidden among the honest."""

from statistics import NormalDist

import numpy as np
import pytest
from byzfl_rules import load_attacks

from protocols.attacks import ATTACKS, Scene, make_attack, most_deviations
from protocols.vectors import Vector

BYZFL = load_attacks()
HONEST, ATTACKERS, SIZE = 13, 3, 400


def scene(seed: int = 0) -> Scene:
    random = np.random.default_rng(seed)
    honest = (1.0 + 0.3 * random.standard_normal((HONEST, SIZE))).astype(np.float32)
    own = (1.0 + 0.3 * random.standard_normal(SIZE)).astype(np.float32)
    return Scene(own, honest, ATTACKERS, random)


def cosine(one: Vector, other: Vector) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_makes_a_vector_and_leaves_what_it_saw_alone(name: str) -> None:
    seen = scene()
    own, honest = seen.own.copy(), seen.honest.copy()
    forged = make_attack(name)(seen)
    assert (forged.shape, forged.dtype) == ((SIZE,), np.float32)
    assert not np.shares_memory(forged, seen.own)
    assert not np.shares_memory(forged, seen.honest)
    np.testing.assert_array_equal(seen.own, own)
    np.testing.assert_array_equal(seen.honest, honest)


def test_sign_flip_points_the_other_way() -> None:
    seen = scene()
    np.testing.assert_array_equal(make_attack("sign_flip", scale=1000.0)(seen), -1000 * seen.own)


def test_noise_hides_the_update_it_is_added_to() -> None:
    seen = scene()
    forged = make_attack("noise", scale=10.0)(seen)
    assert np.linalg.norm(forged - seen.own) == pytest.approx(10 * np.linalg.norm(seen.own), rel=0.2)
    assert not np.array_equal(forged, make_attack("noise", scale=10.0)(seen))


def test_drift_is_the_same_direction_for_every_attacker_and_epoch() -> None:
    first, second = (make_attack("drift")(scene(seed)) for seed in (1, 2))
    assert cosine(first, second) == pytest.approx(1.0)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_ipm_and_alie_as_byzfl_has_them(factor: float) -> None:
    seen = scene()
    np.testing.assert_allclose(
        make_attack("ipm", scale=factor)(seen), BYZFL.InnerProductManipulation(tau=factor)(seen.honest), rtol=1e-5
    )
    # byzfl adds the deviations where the paper subtracts them, and divides by h - 1
    expected = BYZFL.ALittleIsEnough(tau=-factor * float(np.sqrt((HONEST - 1) / HONEST)))(seen.honest)
    np.testing.assert_allclose(make_attack("alie", deviations=factor)(seen), expected, rtol=1e-4, atol=1e-6)


def test_mimic_as_byzfl_has_it() -> None:
    seen = scene()
    np.testing.assert_array_equal(make_attack("mimic", victim=4)(seen), BYZFL.Mimic(epsilon=4)(seen.honest))


@pytest.mark.parametrize(("members", "attackers"), [(50, 24), (51, 24), (16, 7), (16, 3)])
def test_alie_goes_as_far_as_a_majority_follows(members: int, attackers: int) -> None:
    honest = members - attackers
    supporters = members // 2 + 1 - attackers
    assert most_deviations(honest, attackers) == pytest.approx(
        max(0.1, NormalDist().inv_cdf((honest - supporters) / honest))
    )


def test_alie_of_the_papers_example() -> None:
    """50 members, 24 of them corrupt, of which the paper uses about 1.5."""
    assert most_deviations(26, 24) == pytest.approx(1.43, abs=0.1)


def test_delayed_sends_what_was_true_some_epochs_ago() -> None:
    attack = make_attack("delayed", epochs=3)
    seen = [scene(seed) for seed in range(6)]
    forged = [attack(each) for each in seen]
    assert all(not vector.any() for vector in forged[:3])
    for late, early in zip(forged[3:], seen, strict=False):
        np.testing.assert_array_equal(late, early.own)


def test_nan_is_nothing_else() -> None:
    assert np.isnan(make_attack("nan")(scene())).all()


@pytest.mark.parametrize(
    ("name", "parameters", "says"),
    [("flip", {}, "no attack 'flip'"), ("ipm", {"tau": 1.0}, "no parameter 'tau'"), ("nan", {"scale": 1.0}, "scale")],
)
def test_unknown_names_are_said(name: str, parameters: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make_attack(name, **parameters)
