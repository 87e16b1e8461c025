"""What an owner may do to its part: reduce it to something else, or to nothing."""

from dataclasses import replace
from typing import Any

from dht.interfaces import Frame, Stream, Unreachable
from dht.wrapped_transport import WrappedStream
from peer.misbehaviour.lying_transport import LyingTransport
from peer.participant import Participant
from peer.rounds.chunk_frames import SIGN_OF_LIFE
from peer.rounds.exchange import PART_KIND
from peer.rounds.results import FETCH_KIND
from protocols.aggregation import Plan
from protocols.manifest import Averaging
from protocols.rules import CoordinateWiseRule, DistanceRule, Matrix, Rows, Rule, rule_of
from protocols.vectors import Vector

HELD_SECONDS = 60.0
"""So long a stream stands open on which nothing comes."""


class Negative(CoordinateWiseRule):
    """What the rule gives, turned round."""

    def __init__(self, honest: CoordinateWiseRule) -> None:
        self.name, self._honest = honest.name, honest

    def aggregate(self, rows: Rows, weights: Any) -> Vector:
        return -self._honest.aggregate(rows, weights)


class NegativeByDistance(DistanceRule):
    """Observes as it should; all kernels are odd, so turning the rows round turns the result round."""

    def plan(self, gram: Matrix) -> Plan:
        plan = super().plan(gram)
        return replace(plan, matrix=-plan.matrix, of_start=-plan.of_start)


def negative(averaging: Averaging) -> Rule:
    honest = rule_of(averaging)
    if isinstance(honest, CoordinateWiseRule):
        return Negative(honest)
    return NegativeByDistance(averaging.rule, averaging.byzantine, averaging.options)


class WrongPart(Participant):
    """As an owner gives all members the same wrong result, signed as a right one would be."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._plan = replace(self._plan, rule=negative(self.manifest.averaging))


class WithheldPart(LyingTransport):
    """As an owner takes chunks, says that it is alive as long as an honest one would, and never gives a result.

    It gives none later either, to who fetches what others have voted for.
    """

    def served(self, kind: str, stream: Stream) -> Stream:
        return _Silent(stream, self) if kind in (PART_KIND, FETCH_KIND) else stream


class _Silent(WrappedStream):
    def __init__(self, stream: Stream, transport: LyingTransport) -> None:
        super().__init__(stream)
        self._clock = transport.clock

    async def send(self, frame: Frame) -> None:
        if frame == SIGN_OF_LIFE:
            await super().send(frame)
            return
        await self._clock.sleep(HELD_SECONDS)
        raise Unreachable("withheld on purpose")


def withheld_part(**given: Any) -> Participant:
    return Participant(**(given | {"transport": WithheldPart(given["transport"], given["signer"])}))
