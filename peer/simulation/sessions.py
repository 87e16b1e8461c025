"""When a volunteer is there: session lengths and absences, drawn from distributions or read from a file.

Volunteers' sessions are heavy-tailed: Weibull with shapes of 0.3 to 0.6 fits measured peer-to-peer swarms (Stutzbach &
Rejaie 2006, "Understanding churn in peer-to-peer networks", §5).
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from math import inf
from pathlib import Path
from random import Random
from typing import Annotated, Literal

from pydantic import Field

from peer.errors import UsageError
from peer.simulation.table import Fraction, Moment, NotNegative, Seconds, Table

Length = Annotated[Seconds, Field(ge=0.001)]
"""A mean; with less, a day has more sessions than can be looked at."""
MOST_SESSIONS = 100_000
"""Of one peer."""


class _Drawn(Table):
    absent: Length = 60.0
    """Mean seconds between two sessions, exponentially distributed."""
    crashes: Fraction = 1.0
    """So many of the sessions end by kill -9, the others in order."""
    until: Moment = inf
    """From then on nobody goes any more, and who is away comes back."""


class Exponential(_Drawn):
    """Whoever is there has the same chance to go at any moment."""

    kind: Literal["exponential"] = "exponential"
    mean: Length


class Weibull(_Drawn):
    """With a shape below 1, who has stayed for long stays on."""

    kind: Literal["weibull"] = "weibull"
    shape: Annotated[float, Field(ge=0.05, le=10)]
    """With a smaller one, a session may take longer than a float can say."""
    scale: Length


class Diurnal(_Drawn):
    """There for a part of each day; `absent` counts for nothing."""

    kind: Literal["diurnal"] = "diurnal"
    day: Length = 86_400.0
    awake: Length
    """Mean seconds of a day, exponentially distributed, a day at most."""
    begins: NotNegative
    """At which second of the day each volunteer's sessions begin."""


class Traced(Table):
    """As in a file: lines of `peer,join,leave[,crash]` with the peer's number in its group, seconds, and nothing for a
    peer that stays."""

    kind: Literal["trace"] = "trace"
    file: str


Session = Annotated[Exponential | Weibull | Diurnal | Traced, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True)
class Presence:
    """One session."""

    begin: float
    end: float = inf
    crash: bool = False
    """How it ends: killed, or in order."""


def draw_presences(session: Session, first: float, horizon: float, random: Random) -> Iterator[Presence]:
    """The sessions of one peer that begin before `horizon`, the first one at `first`. Not of `Traced`.

    Raises UsageError: they are too many.
    """
    assert not isinstance(session, Traced)
    begin = _first_begin(session, first, random)
    for number in count():
        if begin >= horizon:
            return
        if number == MOST_SESSIONS:
            raise UsageError(f"the sessions are too short: a peer has more than {MOST_SESSIONS:,} of them")
        end = begin + _length(session, random)
        if end >= session.until:
            yield Presence(begin)
            return
        yield Presence(begin, end, random.random() < session.crashes)
        begin = min(_next_begin(session, begin, end, random), max(end, session.until))


def _first_begin(session: Exponential | Weibull | Diurnal, first: float, random: Random) -> float:
    return first + (session.begins.draw(random) if isinstance(session, Diurnal) else 0.0)


def _length(session: Exponential | Weibull | Diurnal, random: Random) -> float:
    match session:
        case Exponential(mean=mean):
            return random.expovariate(1 / mean)
        case Weibull(shape=shape, scale=scale):
            return random.weibullvariate(scale, shape)
        case Diurnal(awake=awake, day=day):
            return min(random.expovariate(1 / awake), day)


def _next_begin(session: Exponential | Weibull | Diurnal, begin: float, end: float, random: Random) -> float:
    if isinstance(session, Diurnal):
        return max(end, begin + session.day)
    return end + random.expovariate(1 / session.absent)


def read_presences(path: Path, peers: int) -> list[list[Presence]]:
    """Those of the peers 0 … `peers` − 1 of a group. Raises UsageError, which names the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = list(csv.reader(lines))
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{str(path)!r} cannot be read: {error}") from error
    presences: list[list[Presence]] = [[] for _ in range(peers)]
    for number, row in enumerate(rows, 1):
        if not row or row[0].startswith("#"):
            continue
        try:
            who, begin, end, *crash = (field.strip() for field in row)
            presence = Presence(float(begin), float(end or inf), _crash(crash))
            its = presences[int(who)] if int(who) in range(peers) else []
        except ValueError as error:
            raise UsageError(f"{path}:{number}: must be peer,join,leave[,crash], not {','.join(row)!r}") from error
        if not max(0.0, its[-1].end if its else 0.0) <= presence.begin < presence.end:  # nor with a NaN
            raise UsageError(f"{path}:{number}: the sessions of peer {who} must follow one another")
        its.append(presence)
    return presences


def _crash(rest: list[str]) -> bool:
    """Raises ValueError."""
    if rest in ([], ["crash"]):
        return bool(rest)
    raise ValueError(rest)
