"""One dealing and all evidence that there can be about it: in any order, the same verdict."""

from collections.abc import Callable
from itertools import combinations

import pytest

from protocols.rejection import Reason, Rejected
from protocols.verification.dealing import Dealing, check_share, is_of, open_share, threshold
from protocols.verification.opening import Opening
from tests.protocols.refusals import refusal
from tests.protocols.verification.dealings import (
    KEYS,
    RECIPIENTS,
    UNSOUND,
    context_of,
    good,
    known_secrets,
    own_polynomial,
    secret_of,
)

Evidence = Callable[[Opening], None]
KINDS = {"sound": good, **UNSOUND}


def fresh(dealt: Dealing, members: int) -> Opening:
    return Opening(dealt, context_of(0), RECIPIENTS[:members])


def known_shares(dealt: Dealing, members: int, index: int) -> list[bytes]:
    """What may be shown as the share of `index`: all that its hash is of and anybody can know."""
    polynomials = [own_polynomial(0, members, degree) for degree in (threshold(members) - 1, threshold(members))]
    candidates = [shares[index].to_bytes(33) for shares in polynomials]
    for source in (dealt, good(0, members)):
        try:
            candidates.append(open_share(source, context_of(0), index, KEYS[index]))
        except Rejected:
            continue
    return [c for c in dict.fromkeys(candidates) if check_share(dealt, context_of(0), index, c)]


def evidence(dealt: Dealing, members: int) -> list[Evidence]:
    """All that there is for this dealing: its secret, members' shares and members' keys."""
    secrets = {secret for secret in known_secrets(0) if is_of(dealt, secret, context_of(0))}
    found: list[Evidence] = [lambda opening, secret=secret: opening.take_secret(secret) for secret in secrets]
    for index in range(members):
        if len(dealt.hashes) == members:
            for share in known_shares(dealt, members, index):
                found.append(lambda opening, index=index, share=share: opening.take_share(index, share))
        found.append(lambda opening, index=index: opening.take_key(index, KEYS[index]))
    return found


@pytest.mark.parametrize("members", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_all_evidence_in_all_orders_comes_to_one_verdict(kind: str, members: int) -> None:
    """Every set of evidence that has settled nothing yet, and every piece that may come next."""
    dealt = KINDS[kind](0, members)
    pieces = evidence(dealt, members)
    open_sets, verdicts = {frozenset[int]()}, set()
    if fresh(dealt, members).is_settled:
        open_sets, verdicts = set(), {(None, True)}
    while open_sets:
        following = set()
        for known in open_sets:
            for piece in set(range(len(pieces))) - known:
                opening = fresh(dealt, members)
                for number in (*known, piece):
                    pieces[number](opening)
                if opening.is_settled:
                    verdicts.add((opening.secret, opening.is_exposed))
                else:
                    following.add(known | {piece})
        open_sets = following
    assert verdicts == {(secret_of(0), False) if kind == "sound" else (None, True)}


@pytest.mark.parametrize("members", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_what_honest_members_have_to_say_settles_every_dealing(kind: str, members: int) -> None:
    dealt = KINDS[kind](0, members)
    for honest in combinations(range(members), threshold(members)):
        opening = fresh(dealt, members)
        for index in honest:
            try:
                share = open_share(dealt, context_of(0), index, KEYS[index])
            except Rejected:
                opening.take_key(index, KEYS[index])
            else:
                opening.take_share(index, share)
        assert opening.is_settled
        assert opening.is_exposed == (kind != "sound")


def test_evidence_that_is_none_is_refused_and_changes_nothing() -> None:
    opening = fresh(good(0, 3), 3)
    share = open_share(good(0, 3), context_of(0), 1, KEYS[1])
    before = open_share(good(0, 3, 6), context_of(0, 6), 1, KEYS[1])
    for call in (
        lambda: opening.take_secret(secret_of(1)),
        lambda: opening.take_share(2, share),
        lambda: opening.take_share(1, bytes(33)),
        lambda: opening.take_share(1, b"\xff" * 33),
        lambda: opening.take_share(1, before),
        lambda: opening.take_key(1, KEYS[2]),
        lambda: opening.take_key(1, bytes(32)),
    ):
        assert refusal(call) is Reason.WRONG_DIGEST
    opening.take_share(1, share)
    opening.take_share(1, share)
    opening.take_key(1, KEYS[1])
    assert not opening.is_settled  # one member's share counts once


def test_what_is_settled_stays_so_whatever_comes() -> None:
    opening = fresh(good(0, 3), 3)
    opening.take_secret(secret_of(0))
    opening.take_secret(b"w" * 32)
    opening.take_share(0, bytes(33))
    opening.take_key(0, bytes(32))
    assert (opening.secret, opening.is_exposed) == (secret_of(0), False)
