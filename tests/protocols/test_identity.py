"""Identities and signatures, held against `cryptography` and hivemind's own PeerID, which know nothing of ours."""

import asyncio
from pathlib import Path

import base58
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hivemind.p2p.p2p_daemon_bindings.datastructures import PeerID
from hivemind.proto import crypto_pb2
from hypothesis import given
from hypothesis import strategies as st

from protocols.encoding import encode
from protocols.identity import (
    Identity,
    IdentityError,
    PeerId,
    parse_peer_id,
    peer_id_bytes,
    peer_id_from_bytes,
    verify,
)
from tests.dht.worlds import run_real, running_node
from tests.protocols.examples import EPOCH, EXAMPLES, MEMBERS, RUN, signer

seeds = st.binary(min_size=32, max_size=32)


def public_key_of(seed: bytes) -> Ed25519PublicKey:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key()


@given(seeds)
def test_peer_id_is_the_multihash_that_libp2p_and_hivemind_make_of_the_public_key(seed: bytes) -> None:
    ours = Identity.from_seed(seed).peer_id
    encoded = crypto_pb2.PublicKey(
        key_type=crypto_pb2.Ed25519, data=public_key_of(seed).public_bytes_raw()
    ).SerializeToString()
    assert peer_id_bytes(ours) == bytes([0x00, len(encoded)]) + encoded
    theirs = PeerID.from_base58(ours)
    assert (theirs.to_bytes(), theirs.to_base58()) == (peer_id_bytes(ours), ours)
    assert peer_id_from_bytes(theirs.to_bytes()) == parse_peer_id(ours) == ours


@given(seeds)
def test_private_key_file_is_the_protobuf_that_libp2p_reads(seed: bytes) -> None:
    ours = Identity.from_seed(seed)
    key = crypto_pb2.PrivateKey(key_type=crypto_pb2.Ed25519, data=seed + public_key_of(seed).public_bytes_raw())
    assert ours.to_libp2p() == key.SerializeToString()
    assert Identity.from_libp2p(ours.to_libp2p()).peer_id == ours.peer_id


def test_p2pd_takes_the_identity_for_the_peer_id_that_we_compute(tmp_path: Path) -> None:
    who = Identity.generate()

    async def scenario() -> None:
        async with running_node(tmp_path, who) as one, running_node(tmp_path, MEMBERS[0]) as other:
            await other.transport.connect(one.peer_id, one.addresses())

            async def who_asks(peer: PeerId, _body: bytes) -> bytes:
                return peer.encode()

            await one.transport.serve_requests("who", who_asks)
            async with asyncio.timeout(10):
                asker = await other.transport.request(one.peer_id, "who", b"", 10)
            assert one.peer_id == who.peer_id
            assert asker.decode() == MEMBERS[0].peer_id

    run_real(scenario())


@given(seeds, st.binary())
def test_signatures_are_those_of_cryptography(seed: bytes, message: bytes) -> None:
    ours = Identity.from_seed(seed)
    signature = ours.sign(message)
    public_key_of(seed).verify(signature, message)
    assert verify(ours.peer_id, message, Ed25519PrivateKey.from_private_bytes(seed).sign(message))
    assert not verify(ours.peer_id, message + b"\x00", signature)
    assert not verify(MEMBERS[0].peer_id, message, signature) or seed == b"\x01" * 32


def test_statement_is_what_its_docstring_says_and_nothing_else() -> None:
    """Another program can check it: a domain tag, then the canonical encoding of all but the signature."""
    statement = signer(MEMBERS[0]).sign(EXAMPLES[0], EPOCH)
    body = EXAMPLES[0].to_bytes()
    signed = b"peer/1/signed\x00" + encode([RUN, MEMBERS[0].peer_id, "progress", EPOCH, 1001, body])
    public_key_of(b"\x01" * 32).verify(statement.wire[-64:], signed)


@pytest.mark.parametrize("cut", [0, 1, 35, 67])
def test_truncated_private_key_is_refused(cut: int) -> None:
    with pytest.raises(IdentityError):
        Identity.from_libp2p(MEMBERS[0].to_libp2p()[:cut])


@given(st.integers(0, 67), st.integers(1, 255))
def test_altered_private_key_is_refused(position: int, change: int) -> None:
    key = bytearray(MEMBERS[0].to_libp2p())
    key[position] ^= change
    with pytest.raises(IdentityError):
        Identity.from_libp2p(bytes(key))


@given(st.one_of(st.text(max_size=80), st.binary(max_size=60).map(lambda data: base58.b58encode(data).decode())))
def test_what_is_no_peer_id_is_refused(text: str) -> None:
    with pytest.raises(IdentityError):
        parse_peer_id(text)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda peer: peer + " ",
        lambda peer: " " + peer,
        lambda peer: "1" + peer,
        lambda peer: peer[:-1],
        lambda peer: peer.replace("K", "k"),
        lambda peer: peer + "1" * 1_000_000,
        lambda peer: base58.b58encode(bytes([0x00, 0x24, 0x08, 0x00]) + peer_id_bytes(peer)[4:]).decode(),  # RSA
        lambda peer: base58.b58encode(bytes([0x12, 0x20]) + peer_id_bytes(peer)[6:]).decode(),  # SHA-256 of a key
    ],
)
def test_other_writings_and_kinds_of_a_peer_id_are_refused(spoil: object) -> None:
    with pytest.raises(IdentityError):
        parse_peer_id(spoil(MEMBERS[0].peer_id))
    assert not verify(spoil(MEMBERS[0].peer_id), b"message", MEMBERS[0].sign(b"message"))
