"""The seed of an epoch: a minority that does what it likes changes nothing, and keeps nobody from it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, combinations, product
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.encoding import decode, digest, encode
from protocols.identity import PeerId
from protocols.rejection import Reason, Rejected
from protocols.verification.dealing import Context, Dealing, Recipient, deal, is_of, open_share, public_key, threshold
from protocols.verification.seed import DealtSecret, DealtShare, Reveal, SeedRound
from tests.protocols.refusals import accepted_or_refused, plain_data, refusal
from tests.protocols.verification.dealings import (
    BASE,
    EPOCH,
    KEYS,
    PEERS,
    RECIPIENTS,
    RUN,
    UNSOUND,
    context_of,
    expected_seed,
    good,
    known_secrets,
    secret_of,
)

Dealings = Mapping[PeerId, Dealing]


def all_good(members: int, dealers: Iterable[int] | None = None) -> Dealings:
    return {PEERS[dealer]: good(dealer, members) for dealer in (range(members) if dealers is None else dealers)}


def member(me: int, members: int, dealings: Dealings, *, forgot: bool = False) -> SeedRound:
    secret = None if forgot else secret_of(me)
    return SeedRound(RUN, EPOCH, BASE, RECIPIENTS[:members], dealings, me, KEYS[me], secret)


def reveal(**changes: Any) -> Reveal:
    return Reveal(**({"base": BASE, "secret": None, "secrets": (), "shares": (), "key": None, "asks": ()} | changes))


def secret(dealer: int, dealt: bytes | None = None) -> DealtSecret:
    return DealtSecret(dealer=dealer, secret=secret_of(dealer) if dealt is None else dealt)


def share_of(dealer: int, holder: int, members: int) -> DealtShare:
    return DealtShare(dealer=dealer, share=open_share(good(dealer, members), context_of(dealer), holder, KEYS[holder]))


def seed_of(dealers: Iterable[int]) -> bytes | None:
    return expected_seed({PEERS[dealer]: secret_of(dealer) for dealer in dealers})


def subsets(items: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return chain.from_iterable(combinations(items, size) for size in range(len(items) + 1))


class Group:
    """Honest members who all hear each other in the end; what others say is for the test."""

    def __init__(self, rounds: Mapping[int, SeedRound], random: Random) -> None:
        self.rounds = rounds
        self.random = random

    def tell(self, sender: int, said: Reveal | None, receivers: Iterable[int]) -> None:
        """Delivers it, and the answers."""
        for receiver in self._shuffled(r for r in receivers if said is not None and r != sender):
            answer = self.rounds[receiver].hear(PEERS[sender], said)
            if answer is not None and sender in self.rounds:
                assert self.rounds[sender].hear(PEERS[receiver], answer) is None  # no answers to answers

    def lie(self, sender: int, said: Reveal, receiver: int) -> None:
        accepted_or_refused(lambda: self.rounds[receiver].hear(PEERS[sender], said))

    def start(self, losses: float = 0.0) -> None:
        for number in self._shuffled(self.rounds):
            receivers = [receiver for receiver in self.rounds if self.random.random() >= losses]
            self.tell(number, self.rounds[number].start(), receivers)

    def finish(self) -> None:
        """Everybody who lacks something asks once: that has to do."""
        for number in self._shuffled(self.rounds):
            self.tell(number, self.rounds[number].overdue(), self.rounds)
        for machine in self.rounds.values():
            assert machine.is_settled
            assert machine.missing == frozenset()
            assert machine.overdue() is None

    def outcome(self) -> tuple[bytes | None, frozenset[PeerId]]:
        """The one of all."""
        outcomes = {(machine.seed, machine.cheats) for machine in self.rounds.values()}
        assert len(outcomes) == 1
        return outcomes.pop()

    def _shuffled(self, numbers: Iterable[int]) -> list[int]:
        chosen = list(numbers)
        self.random.shuffle(chosen)
        return chosen


# -- without attackers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", [1, 2, 3, 8])
def test_all_reveal_and_nobody_has_to_ask(members: int) -> None:
    group = Group({number: member(number, members, all_good(members)) for number in range(members)}, Random(0))
    assert members == 1 or all(machine.seed is None for machine in group.rounds.values())
    group.start()
    assert all(machine.overdue() is None for machine in group.rounds.values())
    assert group.outcome() == (seed_of(range(members)), frozenset())


@pytest.mark.parametrize("members", [1, 2, 3, 8])
def test_who_has_lost_its_secret_is_opened_by_the_others(members: int) -> None:
    group = Group({n: member(n, members, all_good(members), forgot=True) for n in range(members)}, Random(0))
    assert all(machine.start() is None for machine in group.rounds.values())
    group.finish()
    assert group.outcome() == (seed_of(range(members)), frozenset())


def test_group_of_64_of_whom_31_cheat_in_all_ways_and_say_nothing() -> None:
    members = 64
    kinds = ["sound", *(kind for kind in UNSOUND if kind != "for one member more")]  # there are no more than 64
    honest = range(threshold(members))
    dealings = dict(all_good(members, honest))
    cheats = set()
    for dealer in range(len(honest), members):
        kind = kinds[dealer % len(kinds)]
        dealings[PEERS[dealer]] = good(dealer, members) if kind == "sound" else UNSOUND[kind](dealer, members)
        cheats |= {dealer} if kind != "sound" else set()
    speakers = {number: member(number, members, dealings) for number in honest}
    listener = speakers[0]
    for number in honest[1:]:
        said = speakers[number].start()
        assert said is not None
        assert len(said.to_bytes()) < 200
        listener.hear(PEERS[number], said)
    asked = listener.overdue()
    assert asked is not None
    for number in honest[1:]:
        answer = speakers[number].hear(PEERS[0], asked)
        assert answer is not None
        assert len(answer.to_bytes()) < 2048
        listener.hear(PEERS[number], answer)
    assert listener.cheats == {PEERS[dealer] for dealer in cheats}
    assert listener.seed == seed_of(set(range(members)) - cheats)


def test_seed_depends_on_run_epoch_base_and_every_dealer() -> None:
    def alone(run: str = RUN, epoch: int = EPOCH, base: bytes = BASE, dealers: int = 3) -> bytes | None:
        group = [Recipient(PEERS[0], public_key(KEYS[0]))]
        dealt = deal(secret_of(0), Context(run, epoch, base, PEERS[0]), group)
        return SeedRound(run, epoch, base, group, {PEERS[0]: dealt}, 0, KEYS[0], secret_of(0)).seed

    seeds = {alone(), alone(run="demo-" + "b" * 26), alone(epoch=8), alone(base=digest(b"other"))}
    assert len(seeds | {seed_of(dealers) for dealers in ([0, 1], [1], [0, 1, 2])} - {None}) == 7


def test_who_did_not_deal_reveals_nothing_and_helps_all_the_same() -> None:
    dealings = all_good(3, dealers=[0])
    group = Group({number: member(number, 3, dealings, forgot=True) for number in (1, 2)}, Random(0))
    assert group.rounds[1].start() is None
    group.finish()
    assert group.outcome() == (seed_of([0]), frozenset())


def test_secret_of_another_dealing_than_the_one_agreed_on_is_kept() -> None:
    machine = SeedRound(RUN, EPOCH, BASE, RECIPIENTS[:3], all_good(3), 0, KEYS[0], b"o" * 32)
    assert machine.start() is None
    assert PEERS[0] in machine.missing


def test_without_a_sound_dealing_there_is_no_seed() -> None:
    assert member(0, 3, {}).is_settled
    assert member(0, 3, {}).seed is None
    bad = {PEERS[0]: UNSOUND["for one member more"](0, 3)}
    assert (member(1, 3, bad).seed, member(1, 3, bad).cheats) == (None, frozenset(PEERS[:1]))


def test_a_group_that_cannot_be_is_an_error_of_ours() -> None:
    for group, dealings, key in (
        (RECIPIENTS[:3], all_good(4), KEYS[0]),
        ([*RECIPIENTS[:3], RECIPIENTS[0]], all_good(3), KEYS[0]),
        (RECIPIENTS[:3], all_good(3), KEYS[1]),
    ):
        with pytest.raises(ValueError, match=r"members|private key"):
            SeedRound(RUN, EPOCH, BASE, group, dealings, 0, key, None)


# -- with attackers ---------------------------------------------------------------------------------------------------


def what_a_cheat_may_say(dealer: int, dealt: Dealing, dealings: Dealings, members: int) -> dict[str, Reveal]:
    """True words and lies, of which it may tell each to whom it likes."""
    said = {"key": reveal(key=KEYS[dealer]), "another's key": reveal(key=KEYS[dealer - 1 if dealer else 1])}
    secret = next((s for s in known_secrets(dealer) if is_of(dealt, s, context_of(dealer))), None)
    if secret:
        said["secret"] = reveal(secret=secret)
    said["another secret"] = reveal(secret=b"w" * 32)
    numbers = sorted(PEERS.index(peer) for peer in dealings)
    true = []
    for number in numbers:
        shared = accepted_or_refused(
            lambda number=number: open_share(dealings[PEERS[number]], context_of(number), dealer, KEYS[dealer])
        )
        true += [DealtShare(dealer=number, share=shared)] if shared else []
    said["shares"] = reveal(shares=true)
    said["wrong shares"] = reveal(shares=[DealtShare(dealer=number, share=bytes(33)) for number in numbers])
    said["half of them right"] = reveal(
        shares=[*true[:1], *(wrong for wrong in said["wrong shares"].shares if wrong.dealer > true[0].dealer)]
        if true
        else ()
    )
    said["asks"] = reveal(asks=numbers)
    return said


@pytest.mark.parametrize("kind", ["sound", *UNSOUND])
def test_whatever_one_of_three_tells_to_whom_the_seed_is_the_same(kind: str) -> None:
    """All choices that it has: revealing, showing its shares and its key, to either, both or none."""
    dealt = good(2, 3) if kind == "sound" else UNSOUND[kind](2, 3)
    dealings = {**all_good(3, [0, 1]), PEERS[2]: dealt}
    words = what_a_cheat_may_say(2, dealt, dealings, 3)
    expected = (seed_of([0, 1, 2]), frozenset()) if kind == "sound" else (seed_of([0, 1]), frozenset([PEERS[2]]))
    choices = [subsets([0, 1]) if word in words else [()] for word in ("secret", "shares", "key")]
    for secret_to, shares_to, key_to in product(*(list(choice) for choice in choices)):
        for early in (False, True):
            group = Group({number: member(number, 3, dealings) for number in (0, 1)}, Random(0))
            if not early:
                group.start()
            for word, receivers in (("secret", secret_to), ("shares", shares_to), ("key", key_to)):
                for receiver in receivers:
                    group.lie(2, words[word], receiver)
            if early:
                group.start()
            group.finish()
            assert group.outcome() == expected


@settings(max_examples=150)
@given(st.data())
def test_no_minority_changes_the_seed_or_keeps_anybody_from_it(data: st.DataObject) -> None:
    members = data.draw(st.integers(1, 8), label="members")
    random = Random(data.draw(st.integers(0, 2**32), label="order"))
    bad = data.draw(st.sets(st.integers(0, members - 1), max_size=(members - 1) // 2), label="bad")
    honest = sorted(set(range(members)) - bad)
    kinds = {dealer: data.draw(st.sampled_from(["sound", *UNSOUND, "none"])) for dealer in bad}
    silent = data.draw(st.sets(st.sampled_from(honest), max_size=len(honest) - 1), label="did not deal in time")
    forgot = data.draw(st.sets(st.sampled_from(honest)), label="lost their secrets")
    dealings = dict(all_good(members, set(honest) - silent))
    for dealer, kind in kinds.items():
        if kind != "none":
            dealings[PEERS[dealer]] = good(dealer, members) if kind == "sound" else UNSOUND[kind](dealer, members)

    group = Group({n: member(n, members, dealings, forgot=n in forgot) for n in honest}, random)
    lies = []
    for dealer in bad:
        dealt = dealings.get(PEERS[dealer]) or good(dealer, members)
        words = what_a_cheat_may_say(dealer, dealt, dealings, members).values()
        lies += [(dealer, said, receiver) for said in words for receiver in honest if random.random() < 0.4]
    random.shuffle(lies)
    cut = random.randint(0, len(lies))
    for lie in lies[:cut]:
        group.lie(*lie)
    group.start(losses=random.choice([0.0, 0.3, 1.0]))
    for lie in lies[cut:]:
        group.lie(*lie)
    group.finish()

    sound = [dealer for dealer, kind in kinds.items() if kind == "sound"]
    cheats = frozenset(PEERS[dealer] for dealer, kind in kinds.items() if kind in UNSOUND)
    assert group.outcome() == (seed_of([*(set(honest) - silent), *sound]), cheats)


def test_a_dealer_of_garbage_cannot_choose_whether_there_is_a_seed() -> None:
    """Nobody holds a share that opens: the members show that by their keys."""
    dealings = {**all_good(5, [0, 1, 2]), PEERS[4]: UNSOUND["with garbage for all"](4, 5)}
    group = Group({number: member(number, 5, dealings) for number in range(3)}, Random(0))
    group.start()
    assert group.rounds[0].seed is None
    group.finish()
    assert group.outcome() == (seed_of([0, 1, 2]), frozenset([PEERS[4]]))


def test_who_hears_a_single_other_hears_from_it_what_all_have_revealed() -> None:
    """As a member in client mode does, whom most others cannot dial."""
    dealings = all_good(9, range(8))
    group = Group({number: member(number, 9, dealings) for number in range(9)}, Random(0))
    for dealer in range(8):
        group.tell(dealer, group.rounds[dealer].start(), range(1 if dealer else 9))
    for number in range(1, 9):
        group.tell(number, group.rounds[number].overdue(), [0])
        assert group.rounds[number].seed == seed_of(range(8))
    assert group.outcome() == (seed_of(range(8)), frozenset())


def test_who_was_revealed_to_still_answers_who_was_not() -> None:
    dealings = all_good(5)
    group = Group({number: member(number, 5, dealings) for number in range(3)}, Random(0))
    group.start()
    for dealer in (3, 4):
        group.lie(dealer, reveal(secret=secret_of(dealer)), 0)
    assert group.rounds[0].overdue() is None
    assert group.rounds[0].seed == seed_of(range(5))
    for number in (1, 2):
        group.tell(number, group.rounds[number].overdue(), [0])
    assert group.rounds[1].seed == group.rounds[2].seed == seed_of(range(5))
    assert group.outcome() == (seed_of(range(5)), frozenset())


def test_before_it_reveals_an_honest_member_gives_nothing_away() -> None:
    """The coalition of two has two shares of three, and no answer from who has not begun."""
    dealings = all_good(5)
    spies = {number: member(number, 5, dealings) for number in (3, 4)}
    for asker, asked in ((3, 4), (4, 3)):
        said = spies[asker].overdue()
        assert said is not None
        answer = spies[asked].hear(PEERS[asker], said)
        assert answer is not None
        spies[asker].hear(PEERS[asked], answer)
    assert all(spy.missing == frozenset(PEERS[:3]) and spy.seed is None for spy in spies.values())


def test_keys_are_shown_only_where_a_share_does_not_open() -> None:
    honest = member(0, 3, all_good(3))
    said, answer = honest.overdue(), honest.hear(PEERS[1], reveal(asks=(0, 1, 2)))
    assert said is not None
    assert answer is not None
    assert (said.key, answer.key) == (None, None)
    assert (answer.secret, [dealt.dealer for dealt in answer.shares]) == (secret_of(0), [1, 2])
    cheated = member(0, 3, {**all_good(3, [0, 1]), PEERS[2]: UNSOUND["with garbage for the first"](2, 3)})
    said = cheated.overdue()
    assert said is not None
    assert (said.key, said.asks, cheated.cheats) == (KEYS[0], (1,), {PEERS[2]})


BEFORE = open_share(good(1, 3, EPOCH - 1), context_of(1, EPOCH - 1), 2, KEYS[2])
REFUSED = {
    "by a stranger": (PEERS[5], reveal(secret=secret_of(5)), Reason.UNEXPECTED),
    "of another base": (PEERS[1], reveal(base=digest(b"other"), secret=secret_of(1)), Reason.UNEXPECTED),
    "by who has not dealt": (PEERS[2], reveal(secret=secret_of(2)), Reason.UNEXPECTED),
    "a share of who has not dealt": (PEERS[1], reveal(shares=(share_of(2, 1, 3),)), Reason.UNEXPECTED),
    "asking for who has not dealt": (PEERS[1], reveal(asks=(2,)), Reason.UNEXPECTED),
    "asking for nobody": (PEERS[1], reveal(asks=(63,)), Reason.UNEXPECTED),
    "another's secret": (PEERS[1], reveal(secret=secret_of(0)), Reason.WRONG_DIGEST),
    "a false secret of another's": (PEERS[2], reveal(secrets=(secret(1, secret_of(0)),)), Reason.WRONG_DIGEST),
    "a secret of who has not dealt": (PEERS[1], reveal(secrets=(secret(2),)), Reason.UNEXPECTED),
    "another's share": (PEERS[2], reveal(shares=(share_of(1, 0, 3),)), Reason.WRONG_DIGEST),
    "a share of another epoch": (
        PEERS[2],
        reveal(shares=(DealtShare(dealer=1, share=BEFORE),)),
        Reason.WRONG_DIGEST,
    ),
    "another's key": (PEERS[2], reveal(key=KEYS[1]), Reason.WRONG_DIGEST),
}


@pytest.mark.parametrize(("sender", "said", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(sender: PeerId, said: Reveal, reason: Reason) -> None:
    machine = member(0, 3, all_good(3, [0, 1]))
    assert refusal(lambda: machine.hear(sender, said)) is reason
    assert machine.missing == {PEERS[1]}
    assert machine.cheats == frozenset()


def test_asking_for_a_dealing_of_another_size_is_answered() -> None:
    """Even where it has no share for us at all."""
    dealings = {**all_good(3, [0]), PEERS[1]: good(1, 1)}
    answer = member(2, 3, dealings).hear(PEERS[0], reveal(asks=(1,)))
    assert answer is not None
    assert answer.shares == ()


def test_our_own_words_come_back_as_nothing() -> None:
    machine = member(0, 3, all_good(3))
    assert machine.hear(PEERS[0], reveal(secret=b"w" * 32, asks=(1,))) is None


# -- from the network -------------------------------------------------------------------------------------------------

LARGEST = Reveal(
    base=BASE,
    secret=secret_of(0),
    secrets=tuple(DealtSecret(dealer=number, secret=b"\xff" * 32) for number in range(64)),
    shares=tuple(DealtShare(dealer=number, share=b"\xff" * 33) for number in range(64)),
    key=KEYS[0],
    asks=tuple(range(64)),
)


def test_the_largest_reveal_fits_into_its_message() -> None:
    assert Reveal.from_bytes(LARGEST.to_bytes()) == LARGEST
    assert refusal(lambda: Reveal.from_bytes(bytes(Reveal.limit_bytes + 1))) is Reason.OVERSIZED


SHARE = share_of(1, 0, 3).model_dump()
KNOWN = secret(1).model_dump()
BAD_FIELDS: dict[str, dict[str, Any]] = {
    "a secret too short": {"secret": bytes(31)},
    "a secret too long": {"secret": bytes(33)},
    "a secret of text": {"secret": "s" * 32},
    "a key too long": {"key": bytes(33)},
    "a share too long": {"shares": [SHARE | {"share": bytes(34)}]},
    "a share of a dealer beyond all": {"shares": [SHARE | {"dealer": 64}]},
    "a share of dealer -1": {"shares": [SHARE | {"dealer": -1}]},
    "a share of dealer true": {"shares": [SHARE | {"dealer": True}]},
    "a share of dealer 1.0": {"shares": [SHARE | {"dealer": 1.0}]},
    "a share with more to it": {"shares": [SHARE | {"more": 1}]},
    "a share twice": {"shares": [SHARE, SHARE]},
    "shares in disorder": {"shares": [SHARE, SHARE | {"dealer": 0}]},
    "too many shares": {"shares": [SHARE | {"dealer": number} for number in range(65)]},
    "a known secret too short": {"secrets": [KNOWN | {"secret": bytes(31)}]},
    "a known secret of a dealer beyond all": {"secrets": [KNOWN | {"dealer": 64}]},
    "a known secret with more to it": {"secrets": [KNOWN | {"more": 1}]},
    "a known secret twice": {"secrets": [KNOWN, KNOWN]},
    "too many known secrets": {"secrets": [KNOWN | {"dealer": number} for number in range(65)]},
    "asking twice": {"asks": [1, 1]},
    "asking in disorder": {"asks": [2, 1]},
    "asking for too many": {"asks": list(range(65))},
    "asking for a number": {"asks": 3},
    "one field more": {"more": None},
}


@pytest.mark.parametrize("fields", BAD_FIELDS.values(), ids=BAD_FIELDS.keys())
def test_a_reveal_is_malformed_with(fields: dict[str, Any]) -> None:
    wire = encode(reveal().model_dump() | fields)
    assert refusal(lambda: Reveal.from_bytes(wire)) is Reason.MALFORMED


@given(st.binary(max_size=512) | plain_data.map(encode))
def test_random_bytes_and_data_are_no_reveal(wire: bytes) -> None:
    assert refusal(lambda: Reveal.from_bytes(wire)) is Reason.MALFORMED


@given(st.binary(min_size=32, max_size=32) | st.none(), st.binary(min_size=32, max_size=32) | st.none(), st.data())
def test_any_wellformed_reveal_is_taken_or_refused_and_exposes_nobody_honest(
    own: bytes | None, key: bytes | None, data: st.DataObject
) -> None:
    numbers = st.lists(st.integers(0, 63), unique=True, max_size=4).map(sorted)
    shares = [
        DealtShare(dealer=number, share=data.draw(st.binary(min_size=33, max_size=33))) for number in data.draw(numbers)
    ]
    secrets = [
        DealtSecret(dealer=number, secret=data.draw(st.binary(min_size=32, max_size=32)))
        for number in data.draw(numbers)
    ]
    said = reveal(secret=own, secrets=tuple(secrets), shares=tuple(shares), key=key, asks=tuple(data.draw(numbers)))
    assert decode(said.to_bytes(), Reveal.limit_bytes)
    machine = member(0, 3, all_good(3))
    for sender in (PEERS[1], PEERS[2], PEERS[9]):
        accepted_or_refused(lambda sender=sender: machine.hear(sender, said))
    assert machine.cheats == frozenset()
    with pytest.raises(Rejected):
        machine.hear(PEERS[9], said)
