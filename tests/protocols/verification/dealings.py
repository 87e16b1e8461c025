"""Groups, good dealings, and bad ones of every kind, dealt by hand."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from protocols.encoding import digest, encode
from protocols.identity import Identity, PeerId
from protocols.verification import dealing as module
from protocols.verification.dealing import PRIME, SHARE_BYTES, Context, Dealing, Recipient, deal, public_key, threshold

RUN = "demo-" + "a" * 26
EPOCH = 7
BASE = digest(b"base")
IDENTITIES = [Identity.from_seed(digest(b"identity", bytes([number]))) for number in range(64)]
PEERS = [identity.peer_id for identity in IDENTITIES]
KEYS = [digest(b"key", bytes([number])) for number in range(64)]
"""Private ones."""
RECIPIENTS = [Recipient(peer, public_key(key)) for peer, key in zip(PEERS, KEYS, strict=True)]


def secret_of(dealer: int) -> bytes:
    return digest(b"secret", bytes([dealer]))


def context_of(dealer: int, epoch: int = EPOCH) -> Context:
    return Context(RUN, epoch, BASE, PEERS[dealer])


@lru_cache(maxsize=1024)
def good(dealer: int, members: int, epoch: int = EPOCH) -> Dealing:
    return deal(secret_of(dealer), context_of(dealer, epoch), RECIPIENTS[:members])


def polynomial(coefficients: Sequence[int], members: int) -> list[int]:
    return [sum(c * x**power for power, c in enumerate(coefficients)) % PRIME for x in range(1, members + 1)]


def by_hand(
    dealer: int,
    shares: Sequence[int],
    *,
    secret: bytes | None = None,
    ephemeral: bytes = digest(b"ephemeral"),
    low_order: bool = False,
) -> Dealing:
    """Consistent in itself: each of these shares is sealed and hashed as it should be."""
    tag = context_of(dealer).tag()
    key = X25519PrivateKey.from_private_bytes(ephemeral)
    public = bytes(32) if low_order else key.public_key().public_bytes_raw()
    wire = [share.to_bytes(SHARE_BYTES) for share in shares]
    exchanged = [bytes(32) if low_order else module._exchange(key, r.key) for r in RECIPIENTS[: len(wire)]]
    return Dealing(
        commitment=module._commitment(secret or secret_of(dealer), tag),
        ephemeral=public,
        sealed=tuple(
            module._cipher(shared, public, RECIPIENTS[index].key, tag, index).encrypt(bytes(12), share, None)
            for index, (share, shared) in enumerate(zip(wire, exchanged, strict=True))
        ),
        hashes=tuple(module._share_hash(share, tag, index) for index, share in enumerate(wire)),
    )


def own_polynomial(dealer: int, members: int, degree: int) -> list[int]:
    """Shares of the dealer's secret on a polynomial of its own choice."""
    others = [int.from_bytes(digest(b"coefficient", bytes([power]))) for power in range(degree)]
    return polynomial([int.from_bytes(secret_of(dealer)), *others], members)


def changed_share(dealer: int, members: int) -> list[int]:
    shares = own_polynomial(dealer, members, threshold(members) - 1)
    return [(shares[0] + 1) % PRIME, *shares[1:]]


def with_item(items: tuple[bytes, ...], index: int, item: bytes) -> tuple[bytes, ...]:
    return (*items[:index], item, *items[index + 1 :])


def with_sealed(dealer: int, members: int, index: int, sealed: bytes) -> Dealing:
    dealt = good(dealer, members)
    return dealt.model_copy(update={"sealed": with_item(dealt.sealed, index, sealed)})


UNSOUND: Mapping[str, Callable[[int, int], Dealing]] = {
    "on another polynomial": lambda d, n: by_hand(d, own_polynomial(d, n, threshold(n) - 1)),
    "on a polynomial of one degree more": lambda d, n: by_hand(d, own_polynomial(d, n, threshold(n))),
    "with a share that is not on the polynomial": lambda d, n: by_hand(d, changed_share(d, n)),
    "with shares of nothing": lambda d, n: by_hand(d, [int.from_bytes(digest(bytes([i]))) for i in range(n)]),
    "with a share beyond the field": lambda d, n: by_hand(d, [PRIME + 5, *own_polynomial(d, n, 1)[1:]]),
    "of a value that is no secret": lambda d, n: by_hand(d, [2**256 + 5] * n),
    "with the commitment of another secret": lambda d, n: good(d, n).model_copy(
        update={"commitment": module._commitment(b"o" * 32, context_of(d).tag())}
    ),
    "with the commitment of no secret": lambda d, n: good(d, n).model_copy(update={"commitment": bytes(32)}),
    "with garbage for the first": lambda d, n: with_sealed(d, n, 0, b"g" * 49),
    "with garbage for the last": lambda d, n: with_sealed(d, n, n - 1, b"g" * 49),
    "with garbage for all": lambda d, n: good(d, n).model_copy(update={"sealed": (b"g" * 49,) * n}),
    "with another share than the hash's": lambda d, n: with_sealed(d, n, 0, by_hand(d, [1] * n).sealed[0]),
    "with another hash than the share's": lambda d, n: good(d, n).model_copy(
        update={"hashes": with_item(good(d, n).hashes, 0, digest(b"another"))}
    ),
    "with another key": lambda d, n: good(d, n).model_copy(update={"ephemeral": public_key(b"e" * 32)}),
    "with a key of low order": lambda d, n: by_hand(d, own_polynomial(d, n, threshold(n) - 1), low_order=True),
    "of another epoch": lambda d, n: good(d, n, EPOCH - 1),
    "of another dealer": lambda d, n: good(d + 1 if d + 1 < n else d - 1 if d else 63, n),
    "for one member more": lambda d, n: good(d, n + 1),
    "for one member less": lambda d, n: good(d, n - 1) if n > 1 else good(d, 2),
}


def known_secrets(dealer: int) -> list[bytes]:
    """What a cheating dealer may reveal: one of them may be what it has committed to."""
    return [secret_of(dealer), b"o" * 32, *(secret_of(other) for other in (dealer + 1, max(0, dealer - 1), 63))]


def expected_seed(sound: Mapping[PeerId, bytes]) -> bytes | None:
    pairs = [[peer, sound[peer]] for peer in sorted(sound)]
    return digest(b"peer/1/seed\x00", encode([RUN, EPOCH, BASE, pairs])) if pairs else None
