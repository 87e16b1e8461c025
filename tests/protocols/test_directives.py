"""What the organiser directs: whoever knows the same directives, in whatever order they came, does the same."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.directives import (
    MAX_DIRECTIVES,
    MAX_SHARED_BYTES,
    MAX_WIRE_BYTES,
    Ban,
    Directive,
    DirectiveLog,
    Order,
    Pause,
    Resume,
    Set,
    Sharing,
)
from protocols.encoding import digest, encode
from protocols.identity import Identity
from protocols.manifest import AdamW, Data, DataParallel, LocalSgd, Manifest, Model, Sgd, Training
from protocols.rejection import Reason, Rejected
from protocols.signed import Signed, Signer

ORGANISER, MEMBER, STRANGER = (Identity.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
SGD = Sgd(learning_rate=0.1, momentum=0.9, weight_decay=0.01)


def run(training: Training | None = None, name: str = "directed") -> Manifest:
    return Manifest(
        name=name,
        organiser=ORGANISER.peer_id,
        model=Model(architecture="mlp"),
        data=Data(dataset="digits"),
        training=training or DataParallel(target_batch=100, optimizer=SGD),
        epochs=1000,
    )


MANIFEST = run()


def signed(
    number: int,
    order: Order,
    epoch: int = 0,
    *,
    by: Identity = ORGANISER,
    of: Manifest = MANIFEST,
    sequence: int = 1,
) -> Signed[Directive]:
    return Signer(by, of.run_id, sequence).sign(Directive(number=number, order=order), epoch)


def log_of(*statements: Signed[Directive], manifest: Manifest = MANIFEST) -> DirectiveLog:
    log = DirectiveLog(manifest)
    for statement in statements:
        log.take(statement.wire)
    return log


def refusal(wire: bytes, manifest: Manifest = MANIFEST) -> Reason:
    log = DirectiveLog(manifest)
    with pytest.raises(Rejected) as rejection:
        log.take(wire)
    assert len(log) == 0
    assert log.digest is None
    return rejection.value.reason


def rate(log: DirectiveLog, epoch: int) -> float:
    return log.training(epoch).outer.learning_rate


# -- what holds -------------------------------------------------------------------------------------------------------


def test_without_directives_the_manifest_holds() -> None:
    log = DirectiveLog(MANIFEST)
    assert log.training(7) is MANIFEST.training
    assert not log.paused(7)
    assert log.bans == {}
    assert log.next_number == 1


def test_a_learning_rate_holds_from_its_epoch_on() -> None:
    log = log_of(signed(1, Set(learning_rate=0.05), 10))
    assert [rate(log, epoch) for epoch in (0, 9, 10, 999)] == [0.1, 0.1, 0.05, 0.05]
    assert log.training(10).outer == SGD.model_copy(update={"learning_rate": 0.05})


def test_changes_hold_by_epoch_and_then_by_number() -> None:
    log = log_of(
        signed(1, Set(learning_rate=0.01), 100),
        signed(2, Set(learning_rate=0.05, weight_decay=0.5), 50),
        signed(3, Set(learning_rate=0.02), 100),
    )
    assert [rate(log, epoch) for epoch in (49, 50, 99, 100)] == [0.1, 0.05, 0.05, 0.02]
    assert log.training(100).outer.weight_decay == 0.5


def test_the_outer_optimizer_of_local_steps_changes_and_the_inner_one_does_not() -> None:
    training = LocalSgd(inner_steps=5, inner=AdamW(learning_rate=0.001))
    manifest = run(training)
    log = log_of(signed(1, Set(learning_rate=0.3), of=manifest), manifest=manifest)
    assert log.training(0) == training.model_copy(
        update={"outer": training.outer.model_copy(update={"learning_rate": 0.3})}
    )


def test_the_target_batch_changes() -> None:
    changed = log_of(signed(1, Set(target_batch=50), 3)).training(3)
    assert isinstance(changed, DataParallel)
    assert (changed.target_batch, changed.optimizer) == (50, SGD)


def test_pause_waits_for_its_epoch_and_resume_does_not() -> None:
    log = log_of(signed(1, Pause(), 5))
    assert [log.paused(epoch) for epoch in (4, 5, 6)] == [False, True, True]
    log.take(signed(2, Resume(), 900).wire)
    assert not log.paused(6)
    log.take(signed(3, Pause(), 6).wire)
    assert [log.paused(epoch) for epoch in (5, 6)] == [False, True]


def test_a_ban_holds_at_once_with_its_first_reason() -> None:
    ban = Ban(peer=MEMBER.peer_id, why="sends noise")
    again = Ban(peer=MEMBER.peer_id, why="again")
    assert log_of(signed(1, ban, 900), signed(2, again)).bans == {MEMBER.peer_id: "sends noise"}


def test_what_lies_beyond_a_missing_number_waits_for_it() -> None:
    later = signed(2, Set(learning_rate=0.05)), signed(4, Pause())
    log = log_of(*later)
    assert log.holding == ()
    assert rate(log, 0) == 0.1
    assert log.next_number == 5
    log.take(signed(1, Resume()).wire)
    assert rate(log, 0) == 0.05
    assert not log.paused(0)
    log.take(signed(3, Resume()).wire)
    assert log.paused(0)


# -- contradictions ---------------------------------------------------------------------------------------------------

THREE = [signed(1, Set(learning_rate=value), 10) for value in (0.02, 0.03, 0.04)]


def test_of_two_with_one_number_one_holds_whichever_came_first() -> None:
    one, other = log_of(*THREE[:2]), log_of(*reversed(THREE[:2]))
    assert one.holding == other.holding
    assert one.digest == other.digest
    assert one.contradictions == other.contradictions
    (held, contradicted) = one.contradictions[0]
    assert {held.wire, contradicted.wire} == {statement.wire for statement in THREE[:2]}
    assert digest(encode([10, held.body.to_bytes()])) < digest(encode([10, contradicted.body.to_bytes()]))


def test_the_same_at_another_epoch_is_a_contradiction_too() -> None:
    log = log_of(signed(1, Pause(), 10), signed(1, Pause(), 11))
    assert len(log.contradictions) == 1


def test_the_same_signed_twice_is_none() -> None:
    one, other = signed(1, Pause(), 10), signed(1, Pause(), 10, sequence=2)
    assert one.wire != other.wire
    log, reverse = log_of(one, other), log_of(other, one)
    assert log.contradictions == ()
    assert len(log) == 1
    assert log.digest == reverse.digest


def test_of_three_two_are_kept_and_all_keep_the_same_two() -> None:
    digests = set()
    for order in permutations(THREE):
        log = log_of(*order)
        assert len(log) == 2
        digests.add(log.digest)
    assert len(digests) == 1


STATEMENTS = [
    *THREE,
    *(signed(2, order, 5) for order in (Pause(), Resume())),
    *(signed(3, Ban(peer=peer.peer_id, why=""), 5) for peer in (MEMBER, STRANGER)),
    signed(4, Set(momentum=0.5), 7),
    signed(4, Set(momentum=0.5), 7, sequence=9),
    signed(6, Pause(), 7),
]


@given(st.lists(st.sampled_from(STATEMENTS)), st.lists(st.sampled_from(STATEMENTS)))
def test_who_hands_on_what_the_other_lacks_ends_with_the_same(
    first: list[Signed[Directive]], second: list[Signed[Directive]]
) -> None:
    one, other = log_of(*first), log_of(*second)
    for asker, asked in ((one, other), (other, one)):
        for wire in asked.lacking(frozenset(asker.known)):
            asker.take(wire)
    assert one.digest == other.digest
    assert one.holding == other.holding
    assert one.digest == log_of(*first, *second).digest


# -- what is refused --------------------------------------------------------------------------------------------------


def test_only_the_organiser_directs() -> None:
    assert refusal(signed(1, Pause(), by=STRANGER).wire) is Reason.WRONG_SENDER
    assert refusal(signed(1, Pause(), of=run(name="other")).wire) is Reason.WRONG_RUN
    wire = signed(1, Pause()).wire
    assert refusal(wire[:-1] + bytes([wire[-1] ^ 1])) is Reason.BAD_SIGNATURE
    assert refusal(b"") is Reason.MALFORMED
    assert refusal(bytes(MAX_WIRE_BYTES + 1)) is Reason.OVERSIZED


def test_a_run_without_an_organiser_takes_no_directives() -> None:
    manifest = MANIFEST.model_copy(update={"organiser": None})
    assert refusal(signed(1, Pause(), of=manifest).wire, manifest) is Reason.WRONG_SENDER


@pytest.mark.parametrize(
    ("order", "training"),
    [
        (Ban(peer=ORGANISER.peer_id, why=""), None),
        (Set(momentum=0.5), DataParallel(target_batch=100, optimizer=Sgd(learning_rate=0.1))),
        (Set(momentum=0.5), DataParallel(target_batch=100, optimizer=AdamW(learning_rate=0.1))),
        (Set(target_batch=101), None),
        (Set(target_batch=50), LocalSgd(inner_steps=5, inner=Sgd(learning_rate=0.1))),
    ],
)
def test_what_the_run_cannot_carry_out_is_refused(order: Order, training: Training | None) -> None:
    manifest = run(training)
    assert refusal(signed(1, order, of=manifest).wire, manifest) is Reason.MALFORMED


@pytest.mark.parametrize(
    "order",
    [
        {"action": "set"},
        {"action": "set", "learning_rate": 0.0},
        {"action": "set", "learning_rate": -0.1},
        {"action": "set", "learning_rate": 1e9},
        {"action": "set", "learning_rate": "0.1"},
        {"action": "set", "momentum": 0.0},
        {"action": "set", "batch_size": 7},
        {"action": "ban", "peer": "nobody", "why": ""},
        {"action": "ban", "peer": MEMBER.peer_id, "why": "x" * 129},
        {"action": "ban", "peer": MEMBER.peer_id, "why": "\x1b[2J"},
        {"action": "pause", "learning_rate": 0.1},
        {"action": "stop"},
        {},
    ],
)
def test_a_directive_out_of_bounds_is_malformed(order: dict[str, object]) -> None:
    with pytest.raises(Rejected, match="malformed"):
        Directive.from_bytes(encode({"number": 1, "order": order}))


@pytest.mark.parametrize("number", [0, -1, MAX_DIRECTIVES + 1, 2**70, 1.0, True])
def test_numbers_are_bounded(number: object) -> None:
    with pytest.raises((Rejected, ValueError)):
        Directive.from_bytes(encode({"number": number, "order": {"action": "pause"}}))


def test_the_longest_directive_fits() -> None:
    wire = signed(MAX_DIRECTIVES, Ban(peer=MEMBER.peer_id, why="\U0001f40c" * 128), 2**50).wire
    assert log_of().take(wire)
    everything = Set(learning_rate=0.1, final_learning_rate=0.1, weight_decay=0.1, momentum=0.1, target_batch=2**40)
    assert len(Directive(number=1, order=everything).to_bytes()) < Directive.limit_bytes


def test_a_full_log_is_handed_on_in_messages_that_are_taken() -> None:
    full = DirectiveLog(MANIFEST)
    for number in range(1, MAX_DIRECTIVES + 1):
        full.take(signed(number, Ban(peer=MEMBER.peer_id, why="\U0001f40c" * 100)).wire)
    learner = DirectiveLog(MANIFEST)
    while statements := full.lacking(frozenset(learner.known)):
        assert sum(map(len, statements)) <= MAX_SHARED_BYTES
        answer = Sharing.from_bytes(Sharing(known=(), statements=statements).to_bytes())
        Sharing.from_bytes(Sharing(known=learner.known, statements=()).to_bytes())
        for wire in answer.statements:
            learner.take(wire)
    assert learner.digest == full.digest
    assert learner.holding[-1].body.number == MAX_DIRECTIVES
    assert full.lacking(frozenset(), newest_first=True)[0] == full.wires[-1]
