"""What a member brings into an epoch's seed beside its round: a key to seal shares for it, and its secret, dealt."""

from dataclasses import dataclass, field

from peer.verification.account import recipients
from protocols.identity import PeerId
from protocols.message import Message
from protocols.rejection import Reason, Rejected
from protocols.round.messages import Begin, Prepared, Ready
from protocols.signed import Signer
from protocols.verification.dealing import Context, Dealing, deal, public_key


@dataclass
class SeedSecrets:
    """One member's for one epoch. They follow from its identity, so that it has them again when it restarts."""

    signer: Signer
    epoch: int
    base: bytes
    """Digest of the state that the epoch starts from."""
    me: PeerId
    _keyed: set[int] = field(default_factory=set)
    """The terms in which we have said our key."""
    _keys: dict[int, bytes] = field(default_factory=dict)
    """Term → our key in it, if it was wanted: every `Begin` that somebody hands on is held against it."""
    _dealings: dict[int, Dealing] = field(default_factory=dict)
    """Term → what we have dealt in it."""

    def private_key(self, term: int) -> bytes:
        """What is sealed for us in that term is opened with it."""
        return self.signer.secret("key", self.epoch, self.base, term)

    def secret(self, term: int) -> bytes:
        """Our part in the seed."""
        return self.signer.secret("dealt", self.epoch, self.base, term)

    def added_to(self, body: Message, begin: Begin | None) -> Message:
        """`body`, with our key where it says that we are ready, and our dealing to the group where it is our vote."""
        match body:
            case Ready(term=term):
                self._keyed.add(term)
                return body.model_copy(update={"key": self._key(term)})
            case Prepared(term=term) if begin is not None:
                if term not in self._dealings:
                    context = Context(self.signer.run, self.epoch, self.base, self.me)
                    self._dealings[term] = deal(self.secret(term), context, recipients(begin))
                return body.model_copy(update={"dealing": self._dealings[term]})
        return body

    def check(self, body: Message) -> None:
        """A leader that gives us another key than we have said would keep what is sealed for us from us.

        Raises Rejected (unexpected: it may be the one that we had before we restarted).
        """
        if isinstance(body, Begin) and body.term in self._keyed and not self.are_named(body):
            raise Rejected(Reason.UNEXPECTED, "begin: the key that it names as ours is not")

    def are_named(self, begin: Begin) -> bool:
        """Whether it names our key, if us at all."""
        ours = next((member.key for member in begin.members if member.peer == self.me), None)
        return ours is None or ours == self._key(begin.term)

    def _key(self, term: int) -> bytes:
        if term not in self._keys:
            self._keys[term] = public_key(self.private_key(term))
        return self._keys[term]
