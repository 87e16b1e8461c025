"""A secret dealt to a group so that most of it can open what the dealer does not (Shamir 1979), checked as a whole.

A dealer commits to a 32-byte secret, and seals one share of it for each member. `threshold` members open it, fewer
learn nothing. **Everything in a dealing is derived from the secret**, its context and its recipients: who knows the
secret can deal it again and compare (`is_sound`). So a dealing is sound or it is not, for one secret at most, and
whoever opens it, by whichever way, comes to the same verdict; a verifiable secret sharing (Feldman 1987) needs no
group for that, only that the secret becomes known in the end.

Secrecy: t − 1 points of a polynomial of degree t − 1 fit to every secret. Its coefficients and the sealing's key are
hashes of the secret, and the shares' hashes are public, so this holds as long as nobody can guess 256 random bits:
**the secret has to be drawn anew for each dealing**. They are bound to the recipients, too, so that one secret dealt
to two groups (which it should not be) gives two unrelated polynomials.

Field: integers modulo `PRIME`, the least prime over 2²⁵⁶; a share is one of them, in 33 bytes. Sealing: X25519
between a key of the dealing and that of the recipient, hashed to a key of ChaCha20-Poly1305 that seals one share
only, hence the nonce of zeros. Group of 64: 5.7 kB.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Self

import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from pydantic import Field, model_validator

from protocols.encoding import digest, encode
from protocols.identity import PeerId
from protocols.message import Digest, Item, Many
from protocols.rejection import Reason, Rejected

PRIME = 2**256 + 297
MAX_RECIPIENTS = 64
"""As many as a group may have members (`MAX_MEMBERS` of a round, whose messages may hold dealings)."""
SECRET_BYTES = 32
SHARE_BYTES = 33
SEALED_BYTES = SHARE_BYTES + 16

Secret = Annotated[bytes, Field(min_length=SECRET_BYTES, max_length=SECRET_BYTES)]
Key = Annotated[bytes, Field(min_length=32, max_length=32)]
"""An X25519 key, public or private."""
Share = Annotated[bytes, Field(min_length=SHARE_BYTES, max_length=SHARE_BYTES)]
"""The polynomial at index + 1, big-endian."""
Sealed = Annotated[bytes, Field(min_length=SEALED_BYTES, max_length=SEALED_BYTES)]

_NONCE = bytes(12)
_COEFFICIENT_BYTES = 48
"""16 more than a field element has, so that the remainder is uniform up to 2⁻¹²⁸."""


class Recipient(NamedTuple):
    """A member, and the X25519 public key (32 bytes) that it made for this epoch."""

    peer: PeerId
    key: bytes


@dataclass(frozen=True, slots=True)
class Context:
    """What a dealing is for; of another epoch, or by another dealer, it is not sound."""

    run: str
    epoch: int
    base: bytes
    """Digest of the state that the epoch starts from."""
    dealer: PeerId

    def tag(self) -> bytes:
        return digest(b"peer/1/dealing/context\x00", encode([self.run, self.epoch, self.base, self.dealer]))


class Dealing(Item):
    """One dealer's commitment and the shares of its secret, one of each recipient in their order."""

    commitment: Digest
    ephemeral: Key
    """Public half of the key with which the shares are sealed."""
    sealed: Annotated[Many[Sealed], Field(min_length=1, max_length=MAX_RECIPIENTS)]
    hashes: Annotated[Many[Digest], Field(min_length=1, max_length=MAX_RECIPIENTS)]
    """Of the shares: they bind the dealer, and hide shares that have 256 bits of entropy."""

    @model_validator(mode="after")
    def _has_a_hash_of_each_share(self) -> Self:
        if len(self.sealed) != len(self.hashes):
            raise ValueError("as many hashes as shares")
        return self


def threshold(members: int) -> int:
    """How many shares open a dealing to so many: as many as are honest when fewer than half are not."""
    return members // 2 + 1


def public_key(private_key: bytes) -> bytes:
    """Of an X25519 private key (32 bytes)."""
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def deal(secret: bytes, context: Context, recipients: Sequence[Recipient]) -> Dealing:
    """The one dealing of `secret` (32 bytes) in this context to these recipients (1 … MAX_RECIPIENTS).

    A recipient whose key is a point of low order (no honest one's is) has a share that everybody can open.
    """
    tag = context.tag()
    binding = encode([tag, recipients])
    ephemeral_key = X25519PrivateKey.from_private_bytes(
        blake3.blake3(b"peer/1/dealing/ephemeral\x00" + binding, key=secret).digest()
    )
    ephemeral = ephemeral_key.public_key().public_bytes_raw()
    shares = _shares(secret, binding, len(recipients))
    return Dealing(
        commitment=_commitment(secret, tag),
        ephemeral=ephemeral,
        sealed=tuple(
            _cipher(_exchange(ephemeral_key, recipient.key), ephemeral, recipient.key, tag, index).encrypt(
                _NONCE, share, None
            )
            for index, (recipient, share) in enumerate(zip(recipients, shares, strict=True))
        ),
        hashes=tuple(_share_hash(share, tag, index) for index, share in enumerate(shares)),
    )


def open_share(dealing: Dealing, context: Context, index: int, private_key: bytes) -> bytes:
    """The share of the recipient `index`, whose private key this is.

    Raises Rejected: wrong_digest, when it does not decrypt or is not the share of the dealing's hash. No sound dealing
    is refused so, whoever shows the private key to the recipient's public one.
    """
    if index >= len(dealing.sealed):
        raise Rejected(Reason.WRONG_DIGEST, f"dealing: it has no share for {index}")
    tag = context.tag()
    key = X25519PrivateKey.from_private_bytes(private_key)
    shared = _exchange(key, dealing.ephemeral)
    cipher = _cipher(shared, dealing.ephemeral, key.public_key().public_bytes_raw(), tag, index)
    try:
        share = cipher.decrypt(_NONCE, dealing.sealed[index], None)
    except InvalidTag as error:
        raise Rejected(Reason.WRONG_DIGEST, f"dealing: the share for {index} does not decrypt") from error
    if not check_share(dealing, context, index, share):
        raise Rejected(Reason.WRONG_DIGEST, f"dealing: the share for {index} is not the one of its hash")
    return share


def check_share(dealing: Dealing, context: Context, index: int, share: bytes) -> bool:
    """Whether the dealer is bound to this share of the recipient `index`."""
    return int.from_bytes(share) < PRIME and _share_hash(share, context.tag(), index) == dealing.hashes[index]


def is_of(dealing: Dealing, secret: bytes, context: Context) -> bool:
    """Whether the dealer has committed to this secret, soundly or not."""
    return _commitment(secret, context.tag()) == dealing.commitment


def is_sound(dealing: Dealing, secret: bytes, context: Context, recipients: Sequence[Recipient]) -> bool:
    """Whether all of the dealing is what an honest dealer of this secret deals."""
    return is_of(dealing, secret, context) and deal(secret, context, recipients) == dealing


def reconstruct(dealing: Dealing, shares: Mapping[int, bytes], context: Context) -> bytes | None:
    """The secret from at least `threshold` checked shares by their index; None when it is not that of the commitment.

    Of an unsound dealing some shares may give the secret, and others None.
    """
    needed = threshold(len(dealing.hashes))
    if len(shares) < needed:
        raise ValueError(f"{len(shares)} shares open nothing, {needed} do")
    points = {index + 1: int.from_bytes(shares[index]) for index in sorted(shares)[:needed]}
    value = interpolate(points, 0)
    if value.bit_length() > 8 * SECRET_BYTES:
        return None
    secret = value.to_bytes(SECRET_BYTES)
    return secret if is_of(dealing, secret, context) else None


def interpolate(points: Mapping[int, int], at: int) -> int:
    """The value at `at` of the polynomial of least degree through these points (x → y), modulo PRIME (Lagrange)."""
    total = 0
    for x, y in points.items():
        numerator, denominator = 1, 1
        for other in points:
            if other != x:
                numerator = numerator * (at - other) % PRIME
                denominator = denominator * (x - other) % PRIME
        total += y * numerator * pow(denominator, -1, PRIME)
    return total % PRIME


def _shares(secret: bytes, binding: bytes, members: int) -> list[bytes]:
    size = _COEFFICIENT_BYTES * (threshold(members) - 1)
    stream = blake3.blake3(b"peer/1/dealing/coefficients\x00" + binding, key=secret).digest(length=size)
    coefficients = [int.from_bytes(secret)]
    coefficients += [int.from_bytes(stream[at : at + _COEFFICIENT_BYTES]) for at in range(0, size, _COEFFICIENT_BYTES)]
    return [_evaluate(coefficients, index + 1).to_bytes(SHARE_BYTES) for index in range(members)]


def _evaluate(coefficients: Sequence[int], x: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * x + coefficient) % PRIME
    return value


def _commitment(secret: bytes, tag: bytes) -> bytes:
    return digest(b"peer/1/dealing/commitment\x00", tag, secret)


def _share_hash(share: bytes, tag: bytes, index: int) -> bytes:
    return digest(b"peer/1/dealing/share\x00", tag, bytes([index]), share)


def _exchange(private_key: X25519PrivateKey, public: bytes) -> bytes:
    """X25519, and its all-zero result where `public` is of low order, which the library refuses to give."""
    peer_key = X25519PublicKey.from_public_bytes(public)
    try:
        return private_key.exchange(peer_key)
    except ValueError:
        return bytes(32)


def _cipher(shared: bytes, ephemeral: bytes, recipient_key: bytes, tag: bytes, index: int) -> ChaCha20Poly1305:
    key = digest(b"peer/1/dealing/seal\x00", shared, ephemeral, recipient_key, tag, bytes([index]))
    return ChaCha20Poly1305(key)
