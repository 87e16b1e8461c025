"""The random seed of an epoch that no minority of its group can bias or foresee: commit, share, reveal.

After BTARD ("Secure Distributed Training at Scale", Gorbunov et al. 2022), where whoever does not reveal is banned;
here the others open what it has committed to, for a ban comes too late for the seed that its silence chose.

1. Each member deals a fresh secret to the group (`dealing.py`).
2. The group agrees on a set of dealings. *No part of this module; nothing below holds before that.*
3. Each dealer reveals its secret (`start`). What is missing some time later is asked for (`overdue`), and the members
   answer (`hear`) with the secret, where they have heard it, or with the shares they were dealt, or show that they were
   dealt none that opens: that settles it. So who hears a few of the group alone hears from these what the others say.
4. The seed is a hash of the secrets of all agreed dealings that are sound.

**Foresee.** The seed has a secret of an honest dealer in it, of which a minority holds threshold − 1 shares at most:
it knows nothing of it until an honest member reveals or answers, and those do so only when the set is agreed on.

**Bias.** Whoever sees the others' secrets has nothing left to choose. A dealing in the set is sound or it is not,
from when it was made. If it is sound its secret counts: its dealer reveals it, or the honest members, who are as many
as the threshold, open it. If it is not sound it does not count: a secret that is revealed for it, to whomever, shows
it by dealing again; shares that are opened give a secret that shows it, or give none; and if it was sealed so that
honest members cannot open their shares, they prove *that* by their private keys of the epoch. Were the last missing,
a dealer of garbage could see all other secrets and then choose whether there will be a seed. `opening.py` has the
cases.

**Agreement.** All honest members settle each dealing alike, for its soundness is a property of its bytes; all of them
settle it, for each asks all members for what it lacks until it has it, and the honest answers alone suffice.

**Assumed**: fewer than half of the group (`recipients`) are dishonest or dead; all honest members have the same set
of dealings, and none of them makes a `SeedRound` before that set is final (not in another term of the epoch either: a
term that agrees on another set needs new secrets and new keys); one of the set's dealers is honest, which holds if
there are `threshold` of them; keys and secrets are random, and of one epoch; words of honest members arrive in the
end. Where half of the group is dishonest, it foresees the seed, and may keep the others from it.

Cost, group of 64, seconds of processor time: dealing one's own 0.005; checking all 0.3, in pieces of 0.005 with each
reveal that is heard, but at once with the answer by which all dealings asked for come to the threshold (so `hear` and
`overdue` are for a thread, one at a time); opening one's shares of all 0.01, as long as a key that somebody shows
takes. Bytes: a dealing 5550, a reveal of one's own 100, of shares of all 3300.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from protocols.encoding import digest, encode
from protocols.identity import PeerId
from protocols.message import Digest, Item, Many, Message
from protocols.rejection import Reason, Rejected
from protocols.verification.dealing import (
    MAX_RECIPIENTS,
    Context,
    Dealing,
    Key,
    Recipient,
    Secret,
    Share,
    is_of,
    open_share,
    public_key,
)
from protocols.verification.opening import Opening

DealerNumber = Annotated[int, Field(ge=0, lt=MAX_RECIPIENTS)]
"""Its index in the group."""


class DealtShare(Item):
    """The share that its sender was dealt by `dealer`."""

    dealer: DealerNumber
    share: Share


class DealtSecret(Item):
    """What `dealer` has dealt."""

    dealer: DealerNumber
    secret: Secret


class Reveal(Message):
    """Of its sender's own secret, to all; or of what others lack of other dealers', to them."""

    kind: ClassVar[str] = "reveal"
    limit_bytes: ClassVar[int] = 8 * 1024
    base: Digest
    secret: Secret | None
    """The sender's own."""
    secrets: Annotated[Many[DealtSecret], Field(max_length=MAX_RECIPIENTS)]
    """Of others, that the receiver lacks; by rising number of the dealer."""
    shares: Annotated[Many[DealtShare], Field(max_length=MAX_RECIPIENTS)]
    """By rising number of the dealer."""
    key: Key | None
    """The sender's private key of the epoch, when some dealer has sealed for it what is no share …"""
    asks: Annotated[Many[DealerNumber], Field(max_length=MAX_RECIPIENTS)]
    """… and the dealers, by rising number, of whom it asks for the receiver's share."""

    @model_validator(mode="after")
    def _names_each_dealer_once(self) -> Self:
        of_shares, of_secrets = ([dealt.dealer for dealt in each] for each in (self.shares, self.secrets))
        for dealers in (of_shares, of_secrets, self.asks):
            if any(former >= latter for former, latter in pairwise(dealers)):
                raise ValueError("dealers are named once each, by rising number")
        return self


class SeedWord(Message):
    """A reveal, of the dealings that this `Done` (`done_digest`) has made the agreed ones."""

    kind: ClassVar[str] = "seed"
    limit_bytes: ClassVar[int] = Reveal.limit_bytes + 1024
    done: Digest
    reveal: Reveal


class SeedRound:
    """One member's part in the seed of one epoch, from when the set of dealings is agreed on."""

    def __init__(
        self,
        run: str,
        epoch: int,
        base: bytes,
        recipients: Sequence[Recipient],
        dealings: Mapping[PeerId, Dealing],
        me: int,
        private_key: bytes,
        secret: bytes | None,
    ) -> None:
        """`recipients`: the group, in its order; `dealings`: the agreed set; `me`: our index in the group.

        `private_key` may be published: it is of this epoch and nothing else. `secret`: what we have dealt; None, or of
        another dealing than the one agreed on: the others open ours. Raises ValueError when the agreed dealers are
        not all of the group, or the private key is not of our public one.
        """
        numbers = {recipient.peer: number for number, recipient in enumerate(recipients)}
        if len(numbers) != len(recipients) or not dealings.keys() <= numbers.keys():
            raise ValueError("members are in the group once each, and dealers are members")
        if public_key(private_key) != recipients[me].key:
            raise ValueError("the private key is not that of our public key in the group")
        self._run, self._epoch, self._base = run, epoch, base
        self._me, self._key, self._secret = me, private_key, None
        self._numbers = numbers
        self._openings = {
            numbers[dealer]: Opening(dealing, Context(run, epoch, base, dealer), recipients)
            for dealer, dealing in sorted(dealings.items(), key=lambda item: numbers[item[0]])
        }
        self._own_shares: dict[int, bytes | None] = {}
        """By dealer, those looked at so far; None where it does not open."""
        own = self._openings.get(me)
        if own and secret is not None and is_of(own.dealing, secret, own.context):
            self._secret = secret
            own.take_secret(secret)

    @property
    def is_settled(self) -> bool:
        """Whether it is known of every agreed dealing if it counts: nothing changes any more."""
        return all(opening.is_settled for opening in self._openings.values())

    @property
    def seed(self) -> bytes | None:
        """32 bytes, the same at all honest members; None before all is settled, and for ever when no dealing counts."""
        secrets = sorted((o.context.dealer, o.secret) for o in self._openings.values() if o.secret is not None)
        if not self.is_settled or not secrets:
            return None
        return digest(b"peer/1/seed\x00", encode([self._run, self._epoch, self._base, secrets]))

    @property
    def cheats(self) -> frozenset[PeerId]:
        """Dealers whose dealing is proved unsound; by the end the same ones at all honest members."""
        return frozenset(opening.context.dealer for opening in self._openings.values() if opening.is_exposed)

    @property
    def missing(self) -> frozenset[PeerId]:
        """Dealers whose dealing is not settled yet."""
        return frozenset(opening.context.dealer for opening in self._openings.values() if not opening.is_settled)

    def start(self) -> Reveal | None:
        """Our own secret, to broadcast once the set of dealings is final; None when ours is not in it."""
        return self._reveal((), secret=self._secret) if self._secret is not None else None

    def overdue(self) -> Reveal | None:
        """To broadcast later, and again until it is None: our shares of what is missing, and asking for it."""
        missing = self._unsettled()
        if not missing:
            return None
        for dealer in missing:
            self._own_share(dealer)
        return self._reveal(missing, asks=self._unsettled())

    def hear(self, sender: PeerId, reveal: Reveal) -> Reveal | None:
        """Takes what it says; the answer, for the sender alone, is what it asks us for.

        Raises Rejected: unexpected (not of the group, of another base, about who has not dealt), wrong_digest (a
        secret, share or key that is not what was committed to). What was right in it is taken all the same.
        """
        number = self._numbers.get(sender)
        named = {dealt.dealer for dealt in reveal.shares} | {told.dealer for told in reveal.secrets} | set(reveal.asks)
        if number is None or reveal.base != self._base or not named <= self._openings.keys():
            raise Rejected(Reason.UNEXPECTED, "reveal: of no member, of another base, or of dealers not agreed on")
        if number == self._me:
            return None
        self._take(number, reveal)
        if not reveal.asks:
            return None
        known = {dealer: self._openings[dealer].secret for dealer in reveal.asks}
        unknown = [dealer for dealer, secret in known.items() if secret is None]
        own = known.pop(self._me, None)
        return self._reveal(unknown, secret=own, secrets=known)

    def _take(self, sender: int, reveal: Reveal) -> None:
        if reveal.secret is not None:
            if sender not in self._openings:
                raise Rejected(Reason.UNEXPECTED, "reveal: the sender's dealing is not one of those agreed on")
            self._openings[sender].take_secret(reveal.secret)
        for told in reveal.secrets:
            self._openings[told.dealer].take_secret(told.secret)
        for dealt in reveal.shares:
            self._openings[dealt.dealer].take_share(sender, dealt.share)
        if reveal.key is not None:
            for opening in self._openings.values():
                opening.take_key(sender, reveal.key)

    def _reveal(
        self,
        dealers: Iterable[int],
        *,
        secret: bytes | None = None,
        secrets: Mapping[int, bytes | None] = MappingProxyType({}),
        asks: Iterable[int] = (),
    ) -> Reveal:
        """`dealers`: of whom we give our shares; `secrets`: of others, those that are known."""
        shares = {dealer: self._own_share(dealer) for dealer in dealers}
        return Reveal(
            base=self._base,
            secret=secret,
            secrets=tuple(
                DealtSecret(dealer=dealer, secret=known) for dealer, known in secrets.items() if known is not None
            ),
            shares=tuple(DealtShare(dealer=dealer, share=share) for dealer, share in shares.items() if share),
            key=self._key if None in shares.values() else None,
            asks=tuple(asks),
        )

    def _own_share(self, dealer: int) -> bytes | None:
        """What `dealer` has sealed for us, opened once; None, and the dealer exposed, when that is no share."""
        if dealer not in self._own_shares:
            opening = self._openings[dealer]
            try:
                share = open_share(opening.dealing, opening.context, self._me, self._key)
            except Rejected:
                self._own_shares[dealer] = None
                opening.take_key(self._me, self._key)
            else:
                self._own_shares[dealer] = share
                opening.take_share(self._me, share)
        return self._own_shares[dealer]

    def _unsettled(self) -> list[int]:
        return [number for number, opening in self._openings.items() if not opening.is_settled]
