"""Dealing a secret: what opens it, what does not, and that cheating shows."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from protocols.encoding import decode, digest, encode
from protocols.rejection import Reason
from protocols.round.messages import MAX_MEMBERS
from protocols.verification.dealing import (
    MAX_RECIPIENTS,
    PRIME,
    Dealing,
    Recipient,
    check_share,
    deal,
    interpolate,
    is_of,
    is_sound,
    open_share,
    reconstruct,
    threshold,
)
from tests.protocols.refusals import plain_data, refusal
from tests.protocols.verification.dealings import (
    EPOCH,
    KEYS,
    PEERS,
    RECIPIENTS,
    UNSOUND,
    context_of,
    good,
    known_secrets,
    secret_of,
)

SIZES = [1, 2, 3, 8, 64]
sizes = st.integers(1, 9)


def opened(members: int, dealer: int = 0) -> dict[int, bytes]:
    dealt = good(dealer, members)
    return {index: open_share(dealt, context_of(dealer), index, KEYS[index]) for index in range(members)}


def points(shares: dict[int, bytes]) -> dict[int, int]:
    return {index + 1: int.from_bytes(share) for index, share in shares.items()}


def is_probably_prime(number: int) -> bool:
    """Miller and Rabin's test with fixed bases."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    return all(
        pow(base, odd, number) == 1 or any(pow(base, odd << k, number) == number - 1 for k in range(twos))
        for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53)
    )


def test_the_field_is_one_that_holds_every_secret() -> None:
    assert is_probably_prime(PRIME)
    assert not any(is_probably_prime(number) for number in range(2**256 + 1, PRIME))


def test_a_dealing_serves_as_many_as_a_group_may_have() -> None:
    assert MAX_RECIPIENTS == MAX_MEMBERS


@pytest.mark.parametrize("members", SIZES)
def test_any_threshold_of_shares_opens_a_dealing(members: int) -> None:
    dealt, shares = good(0, members), opened(members)
    assert is_sound(dealt, secret_of(0), context_of(0), RECIPIENTS[:members])
    assert all(check_share(dealt, context_of(0), index, share) for index, share in shares.items())
    needed = threshold(members)
    for first in range(members - needed + 1):
        some = {index: shares[index] for index in range(first, first + needed)}
        assert reconstruct(dealt, some, context_of(0)) == secret_of(0)
    assert reconstruct(dealt, shares, context_of(0)) == secret_of(0)


@given(sizes, st.randoms())
def test_any_members_open_it_when_they_are_a_majority(members: int, random: Random) -> None:
    chosen = random.sample(range(members), threshold(members))
    shares = opened(members)
    assert reconstruct(good(0, members), {index: shares[index] for index in chosen}, context_of(0)) == secret_of(0)


def test_fewer_shares_than_the_threshold_open_nothing() -> None:
    shares = opened(8)
    with pytest.raises(ValueError, match="4 shares open nothing, 5 do"):
        reconstruct(good(0, 8), {index: shares[index] for index in range(4)}, context_of(0))


@given(st.integers(2, 9), st.binary(min_size=32, max_size=32), st.randoms())
def test_fewer_shares_than_the_threshold_fit_to_any_secret(members: int, other: bytes, random: Random) -> None:
    """There is a polynomial of the dealing's degree through them and any secret: they say nothing about which it is."""
    needed = threshold(members)
    shares = points(opened(members))
    few = dict(random.sample(sorted(shares.items()), needed - 1))
    through_other = few | {0: int.from_bytes(other)}
    values = {x: interpolate(through_other, x) for x in shares}
    assert values.items() >= few.items()
    for some in ({x: values[x] for x in list(values)[start : start + needed]} for start in range(members - needed + 1)):
        assert interpolate(some, 0) == int.from_bytes(other)
    assert interpolate(few, 0) != int.from_bytes(secret_of(0))  # the polynomial is of no lower degree


def test_dealings_of_one_secret_to_different_groups_have_nothing_in_common() -> None:
    first, second = points(opened(4)), points({i: open_share(good(0, 5), context_of(0), i, KEYS[i]) for i in range(5)})
    assert not set(first.values()) & set(second.values())
    assert good(0, 4).ephemeral != good(0, 5).ephemeral


def test_a_dealing_is_the_same_on_every_machine() -> None:
    known = "b0a5d711b05d14e3cb049fb2c38a0e65dddf139f6b2648099e93ce19907822db"
    assert digest(encode(good(0, 5).model_dump())).hex() == known
    assert deal(secret_of(0), context_of(0), RECIPIENTS[:5]) == good(0, 5)


def test_whatever_is_changed_in_context_secret_or_recipients_it_is_another_dealing() -> None:
    dealt, others = good(0, 3), [*RECIPIENTS[:2], Recipient(PEERS[2], RECIPIENTS[3].key)]
    assert not is_sound(dealt, secret_of(1), context_of(0), RECIPIENTS[:3])
    assert not is_sound(dealt, secret_of(0), context_of(1), RECIPIENTS[:3])
    assert not is_sound(dealt, secret_of(0), context_of(0, EPOCH + 1), RECIPIENTS[:3])
    assert not is_sound(dealt, secret_of(0), context_of(0), RECIPIENTS[:2])
    assert not is_sound(dealt, secret_of(0), context_of(0), RECIPIENTS[2::-1])
    assert not is_sound(dealt, secret_of(0), context_of(0), others)


@pytest.mark.parametrize("members", [1, 2, 3, 8])
@pytest.mark.parametrize("kind", UNSOUND)
def test_an_unsound_dealing_is_sound_for_no_secret(kind: str, members: int) -> None:
    dealt = UNSOUND[kind](0, members)
    assert not any(is_sound(dealt, secret, context_of(0), RECIPIENTS[:members]) for secret in known_secrets(0))


def test_only_its_recipient_opens_a_share_and_only_in_its_context() -> None:
    dealt = good(0, 3)
    assert refusal(lambda: open_share(dealt, context_of(0), 1, KEYS[2])) is Reason.WRONG_DIGEST
    assert refusal(lambda: open_share(dealt, context_of(0), 2, KEYS[1])) is Reason.WRONG_DIGEST
    assert refusal(lambda: open_share(dealt, context_of(0, EPOCH + 1), 1, KEYS[1])) is Reason.WRONG_DIGEST
    assert refusal(lambda: open_share(dealt, context_of(1), 1, KEYS[1])) is Reason.WRONG_DIGEST
    assert refusal(lambda: open_share(dealt, context_of(0), 3, KEYS[3])) is Reason.WRONG_DIGEST


def test_a_share_is_of_its_member_context_and_field_alone() -> None:
    dealt, share = good(0, 3), opened(3)[1]
    assert check_share(dealt, context_of(0), 1, share)
    assert not check_share(dealt, context_of(0), 2, share)
    assert not check_share(dealt, context_of(0, EPOCH + 1), 1, share)
    assert not check_share(dealt, context_of(0), 1, bytes(33))
    beyond = UNSOUND["with a share beyond the field"](0, 3)
    assert refusal(lambda: open_share(beyond, context_of(0), 0, KEYS[0])) is Reason.WRONG_DIGEST


def test_a_recipient_whose_key_is_of_low_order_harms_nobody_else() -> None:
    group = [*RECIPIENTS[:2], Recipient(PEERS[2], bytes(32))]
    dealt = deal(secret_of(0), context_of(0), group)
    assert is_sound(dealt, secret_of(0), context_of(0), group)
    shares = {index: open_share(dealt, context_of(0), index, KEYS[index]) for index in range(2)}
    assert reconstruct(dealt, shares, context_of(0)) == secret_of(0)


def test_two_recipients_with_one_key_have_shares_of_their_own() -> None:
    group = [*RECIPIENTS[:2], Recipient(PEERS[2], RECIPIENTS[1].key)]
    dealt = deal(secret_of(0), context_of(0), group)
    assert open_share(dealt, context_of(0), 1, KEYS[1]) != open_share(dealt, context_of(0), 2, KEYS[1])


@pytest.mark.parametrize("members", [0, 65])
def test_there_are_no_dealings_to_nobody_or_to_too_many(members: int) -> None:
    group = (RECIPIENTS * 2)[:members]
    with pytest.raises(ValidationError):
        deal(secret_of(0), context_of(0), group)


# -- from the network -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", SIZES)
def test_a_dealing_survives_its_encoding(members: int) -> None:
    wire = encode(good(0, members).model_dump())
    assert Dealing.model_validate(decode(wire, 2**16)) == good(0, members)
    assert len(wire) < 6 * 1024


@given(plain_data)
def test_random_data_is_no_dealing(value: object) -> None:
    with pytest.raises(ValidationError):
        Dealing.model_validate(value)


@given(st.sampled_from(sorted(Dealing.model_fields)), plain_data)
def test_no_field_takes_anything_else(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Dealing.model_validate(good(0, 3).model_dump() | {field: value})


D = good(0, 3).model_dump()
BAD_FIELDS = {
    "a share too short": {"sealed": [*D["sealed"][:2], bytes(48)]},
    "a share too long": {"sealed": [*D["sealed"][:2], bytes(50)]},
    "a hash too few": {"hashes": D["hashes"][:2]},
    "a share too few": {"sealed": D["sealed"][:2]},
    "no shares": {"sealed": [], "hashes": []},
    "too many shares": {"sealed": D["sealed"] * 22, "hashes": D["hashes"] * 22},
    "a key too short": {"ephemeral": bytes(31)},
    "a commitment too long": {"commitment": bytes(33)},
    "text for bytes": {"commitment": "c" * 32},
    "one field more": {"secret": bytes(32)},
}


@pytest.mark.parametrize("fields", BAD_FIELDS.values(), ids=BAD_FIELDS.keys())
def test_a_dealing_is_refused_with(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Dealing.model_validate(D | fields)


def test_what_is_revealed_of_another_secret_is_not_of_the_dealing() -> None:
    assert is_of(good(0, 3), secret_of(0), context_of(0))
    assert not is_of(good(0, 3), secret_of(1), context_of(0))
    assert not is_of(good(0, 3), secret_of(0), context_of(0, EPOCH + 1))
