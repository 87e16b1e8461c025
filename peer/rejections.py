"""Refused inputs by reason."""

from collections import Counter
from dataclasses import dataclass, field

import structlog

from protocols.identity import PeerId

log = structlog.get_logger()


@dataclass
class Rejections:
    """To be called at each refusal."""

    by_reason: Counter[str] = field(default_factory=Counter)

    def __call__(self, peer: PeerId, reason: str, message: str) -> None:
        self.by_reason[reason] += 1
        log.debug("refused", peer=peer, reason=reason, why=message)
