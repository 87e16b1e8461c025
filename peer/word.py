"""What a member says of itself: signed once, and said to all until it says something else."""

from collections.abc import Callable

from dht.interfaces import Clock
from protocols.records import RosterEntry
from protocols.signed import Signed, Signer

WORD_SECONDS = 1.0
"""A word is no older when it is said: those who hear it again and again know by new ones that it is no replay."""
COUNTERS = {"expires", "samples_contributed", "samples_per_second", "bandwidth_bytes_per_second"}
"""What changes all the time, and is worth no signature of its own."""


class Word:
    def __init__(self, signer: Signer, clock: Clock, entry: Callable[[], tuple[RosterEntry, int]]) -> None:
        """`entry`: what to say now (its expiry and whether we depart are set here), and our epoch."""
        self.departed = False
        self._signer, self._clock, self._entry = signer, clock, entry
        self._last: Signed[RosterEntry] | None = None
        self._said: RosterEntry | None = None
        """What the last one was made of."""
        self._signed_at = float("-inf")

    def say(self) -> Signed[RosterEntry]:
        body, epoch = self._entry()
        now = self._clock.monotonic()
        if self._last is None or now > self._signed_at + WORD_SECONDS or self._is_news(body, epoch):
            expires = self._clock.wall() + RosterEntry.ttl_seconds
            signed = body.model_copy(update={"departed": self.departed, "expires": expires})
            self._last, self._said, self._signed_at = self._signer.sign(signed, epoch), body, now
        return self._last

    def _is_news(self, body: RosterEntry, epoch: int) -> bool:
        """Whether it says something else than the last one, but for what changes all the time."""
        last = self._last
        if last is None or (epoch, self.departed) != (last.epoch, last.body.departed):
            return True
        return body is not self._said and any(
            value != getattr(self._said, name) for name, value in body if name not in COUNTERS
        )
