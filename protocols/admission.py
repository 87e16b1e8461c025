"""Who may take part in a run: everybody, who is on the manifest's list, or whom the organiser has given a token.

Identities cost nothing, so without admission any number of them may join. A token names one peer, so it is of no use to
anybody else, and can be shown to everybody.
"""

from collections.abc import Iterable
from typing import Annotated, ClassVar

from pydantic import Field

from protocols.identity import PeerId
from protocols.manifest import Manifest
from protocols.message import Message, Peer
from protocols.rejection import Reason, Rejected
from protocols.signed import Signed, open_signed

FOR_EVER = 0.0


class Token(Message):
    """The organiser's word that this peer may take part."""

    kind: ClassVar[str] = "token"
    limit_bytes: ClassVar[int] = 512

    peer: Peer
    expires: Annotated[float, Field(ge=0, le=2**40)]
    """Unix seconds; FOR_EVER: it does not expire."""


class Admission:
    """Of one run, as one member knows it."""

    def __init__(self, manifest: Manifest) -> None:
        self._run, self._organiser, self._rule = manifest.run_id, manifest.organiser, manifest.admission
        self._tokens: dict[PeerId, float] = {}
        """Who has shown one → when it expires."""
        self.banned: dict[PeerId, str] = {}
        """Who may not take part any more, and why."""

    def ban(self, peer: PeerId, why: str) -> None:
        self.banned.setdefault(peer, why)

    def admit(self, peer: PeerId, token: bytes, now: float) -> None:
        """`peer` shows its `token` (b"": none) at `now` (Unix seconds). Raises Rejected (not_admitted), and what
        `open_signed` raises."""
        if self._rule.policy == "token" and peer != self._organiser:
            if not token:
                raise Rejected(Reason.NOT_ADMITTED, f"{peer} has no token of this run's organiser")
            opened = self.open(token)
            if opened.body.peer != peer:
                raise Rejected(Reason.NOT_ADMITTED, f"the token of {peer} is {opened.body.peer}'s")
            self._tokens[peer] = opened.body.expires
        self.require(peer, now)

    def require(self, peer: PeerId, now: float) -> None:
        """Raises Rejected (not_admitted, banned) unless `peer` may take part, as far as it has shown."""
        if peer in self.banned:
            raise Rejected(Reason.BANNED, f"{peer} is banned: {self.banned[peer]}")
        match self._rule.policy:
            case "allowlist" if peer != self._organiser and peer not in self._rule.peers:
                raise Rejected(Reason.NOT_ADMITTED, f"{peer} is not on this run's list")
            case "token" if peer != self._organiser:
                expires = self._tokens.get(peer)
                if expires is None:
                    raise Rejected(Reason.NOT_ADMITTED, f"{peer} has shown no token yet")
                if expires != FOR_EVER and expires < now:
                    raise Rejected(Reason.NOT_ADMITTED, f"the token of {peer} has expired")

    def check_listed(self, peers: Iterable[PeerId]) -> None:
        """Whom somebody else names; whether they have a token is for whoever talks to them. Raises Rejected.

        Who is banned may be named by who does not know of it yet.
        """
        for peer in peers if self._rule.policy == "allowlist" else ():
            if peer not in self.banned:
                self.require(peer, 0.0)

    def open(self, token: bytes) -> Signed[Token]:
        """Raises Rejected unless it is this run's organiser's."""
        assert self._organiser is not None  # the manifest says so
        return open_signed(token, Token, run=self._run, sender=self._organiser)
