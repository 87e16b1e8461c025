"""What a lying member sends instead of its update: the attacks of the papers, to test rules and rounds against.

An attack sees what its attackers may be assumed to see: the honest updates of this epoch, all of them at the worst.
Label flipping is none of these, because it is done to the data before there is an update.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.vectors import Vector

Updates = NDArray[np.float32]
"""Honest updates, (n - f, d)."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What one of `attackers` who act together knows when it makes its update."""

    own: Vector
    """(d,): what it would send if it were honest."""
    honest: Updates
    """(h, d), h ≥ 1: what the others send, or what it takes for that."""
    attackers: int
    random: np.random.Generator


Attack = Callable[[Scene], Vector]
"""Returns what is sent instead, (d,) float32; may remember what it was shown before."""


def sign_flip(*, scale: float = 1.0) -> Attack:
    """Its own update, turned round and enlarged (by 1000 in the experiments of BTARD)."""
    return lambda scene: np.float32(-scale) * scene.own


def noise(*, scale: float = 10.0) -> Attack:
    """Its own update under Gaussian noise of `scale` times the length of the update."""

    def forge(scene: Scene) -> Vector:
        deviation = np.float32(scale * _length(scene.own) / sqrt(len(scene.own)))
        return scene.own + deviation * scene.random.standard_normal(len(scene.own), np.float32)

    return forge


def drift(*, scale: float = 10.0) -> Attack:
    """All attackers pull in one direction, the same in every epoch, with `scale` times the length of an update."""

    def forge(scene: Scene) -> Vector:
        length = scale * _length(scene.own) / sqrt(len(scene.own))
        return np.full_like(scene.own, length)

    return forge


def alie(*, deviations: float | None = None) -> Attack:
    """A little is enough (Baruch et al. 2019): the honest mean less some standard deviations of each
    coordinate, as many as still leave the attackers nearer to the mean than enough honest members are.

    `deviations`: z; by default the paper's z_max for h honest members and the attackers, at least a tenth.
    """

    def forge(scene: Scene) -> Vector:
        away = deviations if deviations is not None else most_deviations(len(scene.honest), scene.attackers)
        mean = scene.honest.mean(axis=0, dtype=np.float64)
        forged: Vector = (mean - away * scene.honest.std(axis=0, dtype=np.float64)).astype(np.float32)
        return forged

    return forge


def most_deviations(honest: int, attackers: int) -> float:
    """The paper's z_max: as far out as the attackers and the s honest members beyond them, s = ⌊n/2 + 1⌋ - f, make a
    majority. A tenth where that is nothing, as with one attacker among few."""
    members = honest + attackers
    supporters = members // 2 + 1 - attackers
    share = (members - attackers - supporters) / honest
    return max(0.1, NormalDist().inv_cdf(min(max(share, 1e-9), 1 - 1e-9)))


def ipm(*, scale: float = 0.6) -> Attack:
    """Inner product manipulation (Xie et al. 2020): the honest mean times -`scale`. Small scales stay among the honest
    and turn their sum; large ones are plain to see."""

    def forge(scene: Scene) -> Vector:
        forged: Vector = (-scale * scene.honest.mean(axis=0, dtype=np.float64)).astype(np.float32)
        return forged

    return forge


def mimic(*, victim: int = 0) -> Attack:
    """All attackers repeat one honest member (Karimireddy et al. 2022), which then counts f + 1 times."""
    return lambda scene: scene.honest[victim % len(scene.honest)].copy()


def delayed(*, epochs: int = 20) -> Attack:
    """Its own update of so many epochs ago (by 1000 steps in the experiments of BTARD); zeros until there is one."""
    earlier: deque[Vector] = deque(maxlen=epochs)

    def forge(scene: Scene) -> Vector:
        oldest = earlier[0] if len(earlier) == epochs else np.zeros_like(scene.own)
        earlier.append(scene.own.copy())
        return oldest

    return forge


def nan() -> Attack:
    """Not a number, everywhere."""
    return lambda scene: np.full_like(scene.own, np.nan)


ATTACKS: dict[str, Callable[..., Attack]] = {
    attack.__name__: attack for attack in (sign_flip, noise, drift, alie, ipm, mimic, delayed, nan)
}


def make_attack(name: str, **parameters: Any) -> Attack:
    """The attack of that name, for one attacker. Raises ValueError: no such attack, or it has no such parameter."""
    if name not in ATTACKS:
        raise ValueError(f"there is no attack {name!r}; choose one of {', '.join(ATTACKS)}")
    make = ATTACKS[name]
    known = make.__kwdefaults__ or {}
    if unknown := sorted(parameters.keys() - known.keys()):
        raise ValueError(f"{name} has no parameter {unknown[0]!r}; it has {sorted(known)}")
    return make(**parameters)


def _length(vector: Vector) -> float:
    return float(np.linalg.norm(vector))
