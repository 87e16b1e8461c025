"""Ed25519 identities whose libp2p PeerID is the public key itself.

A PeerID is the identity multihash of the libp2p protobuf `PublicKey(type=Ed25519, data=32 bytes)`, so whoever knows a
PeerID can check its signatures: there is no key exchange and no registry (libp2p specification, "Peer Ids and Keys").
"""

from collections import OrderedDict
from functools import lru_cache
from typing import NewType

import base58
import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PeerId = NewType("PeerId", str)
"""Base58 text of the PeerID, `12D3KooW…`."""

SIGNATURE_BYTES = 64
VERIFIED_KEPT = 16_384
"""So many signatures that were right are remembered, by digest: 2 MB."""

# Identity multihash (code 0, 36 bytes), then protobuf: field 1 = key type 1 (Ed25519), field 2 = 32 bytes.
_PEER_ID_PREFIX = bytes([0x00, 0x24, 0x08, 0x01, 0x12, 0x20])
# libp2p's PrivateKey protobuf: field 1 = key type 1 (Ed25519), field 2 = 64 bytes (private ‖ public).
_PRIVATE_KEY_PREFIX = bytes([0x08, 0x01, 0x12, 0x40])


class IdentityError(ValueError):
    """Not an Ed25519 PeerID, or not a private key file of one."""


class Identity:
    """A private Ed25519 key; signs, and knows its PeerID."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        self._public_bytes = private_key.public_key().public_bytes_raw()
        self.peer_id = PeerId(base58.b58encode(_PEER_ID_PREFIX + self._public_bytes).decode())

    @classmethod
    def generate(cls) -> "Identity":
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> "Identity":
        """The identity of a 32-byte private key, for tests and simulations."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def from_libp2p(cls, data: bytes) -> "Identity":
        """Reads libp2p's `PrivateKey` protobuf as written by `to_libp2p`. Raises IdentityError."""
        if len(data) != len(_PRIVATE_KEY_PREFIX) + 64 or not data.startswith(_PRIVATE_KEY_PREFIX):
            raise IdentityError("this is not an Ed25519 private key in libp2p's format")
        identity = cls(Ed25519PrivateKey.from_private_bytes(data[4:36]))
        if identity._public_bytes != data[36:]:
            raise IdentityError("the public half of the private key does not belong to its private half")
        return identity

    def to_libp2p(self) -> bytes:
        """libp2p's `PrivateKey` protobuf, which `p2pd` reads (68 bytes, secret)."""
        return _PRIVATE_KEY_PREFIX + self._private_key.private_bytes_raw() + self._public_bytes

    def sign(self, message: bytes) -> bytes:
        signature = self._private_key.sign(message)
        _remember(_name(self.peer_id, message, signature))
        return signature


def verify(peer_id: PeerId, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) of `message` was made by the owner of `peer_id`.

    What is shown again and again, as votes are, is checked once; what this process has signed, not at all.
    """
    if len(signature) != SIGNATURE_BYTES:
        return False
    name = _name(peer_id, message, signature)
    if name in _verified:
        return True
    try:
        _public_key(peer_id).verify(signature, message)
    except (InvalidSignature, IdentityError):
        return False
    _remember(name)
    return True


def parse_peer_id(text: str) -> PeerId:
    """`text` as a PeerId; raises IdentityError unless it is the canonical form of an Ed25519 PeerID."""
    _public_key(PeerId(text))
    return PeerId(text)


def peer_id_bytes(peer_id: PeerId) -> bytes:
    """The 38 bytes of the multihash."""
    return base58.b58decode(peer_id)


def peer_id_from_bytes(data: bytes) -> PeerId:
    return parse_peer_id(base58.b58encode(data).decode())


_verified: OrderedDict[bytes, None] = OrderedDict()


def _name(peer_id: PeerId, message: bytes, signature: bytes) -> bytes:
    """Of a signature and all that it depends on."""
    return blake3.blake3(signature + peer_id.encode() + b"\x00" + message).digest()


def _remember(name: bytes) -> None:
    """A signature that is right."""
    _verified[name] = None
    if len(_verified) > VERIFIED_KEPT:
        _verified.popitem(last=False)


@lru_cache(maxsize=4096)
def _public_key(peer_id: PeerId) -> Ed25519PublicKey:
    if len(peer_id) > 64:  # before base58, whose cost is quadratic
        raise IdentityError("a PeerID of Ed25519 has 52 characters")
    try:
        data = base58.b58decode(peer_id)
    except ValueError as error:
        raise IdentityError(f"{peer_id!r} is not base58") from error
    if len(data) != 38 or not data.startswith(_PEER_ID_PREFIX) or base58.b58encode(data).decode() != peer_id:
        raise IdentityError(f"{peer_id!r} is not the PeerID of an Ed25519 key (12D3KooW…)")
    return Ed25519PublicKey.from_public_bytes(data[6:])
