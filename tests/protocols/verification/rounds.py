"""One small round, with all that its members have signed, for tests of what that proves."""

from dataclasses import dataclass, field

import numpy as np

from protocols.codecs import Codec, codec
from protocols.encoding import digest
from protocols.identity import Identity
from protocols.round.messages import (
    Begin,
    Contribution,
    Member,
    Observed,
    Part,
    Result,
    begin_digest,
    weighing_digest,
)
from protocols.round.parts import Grid
from protocols.round.reduction import EncodedUpdate, PartReduction
from protocols.rules import CoordinateWiseRule, Rule, rule
from protocols.signed import Signed, Signer
from protocols.vectors import Vector

RUN = "demo-" + "a" * 26
EPOCH = 7
IDENTITIES = [Identity.from_seed(bytes([number]) * 32) for number in range(1, 6)]
PEERS = [identity.peer_id for identity in IDENTITIES]


@dataclass
class PlayedRound:
    """Five members, of whom the first owns all of a vector of four chunks."""

    rule_name: str = "median"
    codec_name: str = "none"
    updates: list[Vector] = field(
        default_factory=lambda: list(np.random.default_rng(1).standard_normal((5, 1000)).astype(np.float32))
    )

    def __post_init__(self) -> None:
        self.codec: Codec = codec(self.codec_name)
        self.rule: Rule = rule(self.rule_name, 0 if self.rule_name == "mean" else 1)
        self.grid = Grid(1000)
        self.encoded = [EncodedUpdate(update, self.codec) for update in self.updates]
        members = tuple(
            Member(peer=peer, weight=10 * (n + 1), root=encoded.root)
            for n, (peer, encoded) in enumerate(zip(PEERS, self.encoded, strict=True))
        )
        part = Part(owner=PEERS[0], start=0, stop=self.grid.chunks)
        self.begin: Signed[Begin] = self._sign(1, Begin(base=digest(b"base"), term=0, members=members, parts=(part,)))
        self.contributions = [self.contribution(number) for number in range(5)]
        self.result, self.chunks, self.observed = self.reduce()

    def _sign(self, number: int, body: object, epoch: int = EPOCH) -> Signed:
        return Signer(IDENTITIES[number], RUN, 1000).sign(body, epoch)

    def contribution(self, number: int, **changes: object) -> Signed[Contribution]:
        fields = {
            "term": 0,
            "part": 0,
            "attempt": 0,
            "begin": begin_digest(self.begin.body),
            "chunks": self.encoded[number].digests,
        }
        epoch = int(changes.pop("epoch", EPOCH))
        return self._sign(number, Contribution(**(fields | changes)), epoch)

    def reduce(
        self, by: Rule | None = None, *, heir: int = 0, of: bytes | None = None
    ) -> tuple[Signed[Result], list[bytes], tuple[Signed[Observed], ...]]:
        """The owner's work, done as `by` says instead of the run's rule.

        `heir`: who gives the result instead of the owner, which has observed. `of`: of which round it says to observe.
        """
        body = self.begin.body
        reduction = PartReduction(body.parts[0], self.grid, body.members, self.codec, by or self.rule)
        for number, encoded in enumerate(self.encoded):
            for chunk, payload in enumerate(encoded.chunks):
                reduction.add(number, chunk, payload)
        observed: tuple[Signed[Observed], ...] = ()
        if not isinstance(self.rule, CoordinateWiseRule):
            for chunk in range(self.grid.chunks):
                reduction.observe(chunk)
            observed = (self._sign(0, reduction.observed(0, 0, 0, of or begin_digest(body))),)
            reduction.weigh([statement.body for statement in observed])
        reduced = [
            reduction.reduce(chunk, np.empty(self.grid.size(chunk), np.float32)) for chunk in range(self.grid.chunks)
        ]
        result = Result(
            term=0,
            part=0,
            attempt=int(heir > 0),
            begin=begin_digest(body),
            chunks=tuple(one.digest for one in reduced),
            included=tuple(one.included for one in reduced),
            weighed=weighing_digest([statement.body for statement in observed]) if observed else None,
        )
        return self._sign(heir, result), [bytes(one.payload) for one in reduced], observed

    def rows(self, chunk: int) -> dict[int, bytes]:
        return {number: bytes(encoded.chunks[chunk]) for number, encoded in enumerate(self.encoded)}
