"""The check that every node makes of every record: only what its owner signed, for this place and this time."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.encoding import decode, encode
from protocols.identity import Identity
from protocols.records import (
    CLOCK_SKEW_SECONDS,
    MAX_RECORD_BYTES,
    DirectivesRecord,
    Record,
    RosterEntry,
    check_record,
    record_key,
    record_key_digest,
)
from protocols.rejection import Reason, Rejected
from protocols.round.messages import Wait
from protocols.signed import Signed, Signer

RUN = "demo-" + "a" * 26
OTHER_RUN = "demo-" + "b" * 26
NOW = 1_800_000_000.0
OWNER = Identity.from_seed(b"o" * 32)
OTHER = Identity.from_seed(b"x" * 32)


def entry(**changes: Any) -> RosterEntry:
    fields = {
        "expires": NOW + 60,
        "name": "a name",
        "role": "trainer",
        "addresses": ("/ip4/203.0.113.1/tcp/4001",),
        "client_mode": False,
        "state_digest": bytes(32),
        "samples_contributed": 10,
        "samples_per_second": 1.5,
        "bandwidth_bytes_per_second": 0.0,
        "departed": False,
    }
    return RosterEntry(**(fields | changes))


def signed(body: RosterEntry | None = None, owner: Identity = OWNER, run: str = RUN) -> Signed[RosterEntry]:
    return Signer(owner, run, 1).sign(body or entry(), epoch=4)


def check(wire: bytes, **changes: Any) -> Signed[Record]:
    place = {"key_digest": record_key_digest(RUN, "roster"), "owner": OWNER.peer_id, "expires": NOW + 60, "now": NOW}
    return check_record(wire, **(place | changes))


def refusal(wire: bytes, **changes: Any) -> Reason:
    with pytest.raises(Rejected) as rejection:
        check(wire, **changes)
    return rejection.value.reason


def test_good_record_passes() -> None:
    record = signed()
    checked = check(record.wire)
    assert checked == record
    assert checked.body == entry()


def test_departure_and_unknown_state_pass() -> None:
    body = entry(departed=True, state_digest=None, addresses=(), client_mode=True)
    assert check(signed(body).wire).body == body


def test_record_of_another_run_or_kind_is_refused() -> None:
    assert refusal(signed(run=OTHER_RUN).wire) == Reason.WRONG_RUN
    assert refusal(signed().wire, key_digest=record_key_digest(OTHER_RUN, "roster")) == Reason.WRONG_RUN
    assert refusal(signed().wire, key_digest=record_key_digest(RUN, "manifest")) == Reason.WRONG_RUN
    assert refusal(Signer(OWNER, RUN, 1).sign(Wait(term=1), 1).wire) == Reason.WRONG_KIND


def test_record_under_another_owner_is_refused() -> None:
    assert refusal(signed(owner=OTHER).wire) == Reason.WRONG_SENDER
    assert refusal(signed().wire, owner=OTHER.peer_id) == Reason.WRONG_SENDER
    assert refusal(signed().wire, owner="") == Reason.WRONG_SENDER


def test_forged_signature_is_refused() -> None:
    *statement, _ = decode(signed().wire, MAX_RECORD_BYTES)
    forged = OTHER.sign(b"peer/1/signed\x00" + encode(statement))
    assert refusal(encode([*statement, forged])) == Reason.BAD_SIGNATURE


def test_sequence_cannot_be_changed() -> None:
    run, sender, kind, epoch, sequence, body, signature = decode(signed().wire, MAX_RECORD_BYTES)
    assert refusal(encode([run, sender, kind, epoch, sequence + 1, body, signature])) == Reason.BAD_SIGNATURE


@pytest.mark.parametrize("later", [1.0, -1.0, 1e-3])
def test_expiration_is_the_one_that_was_signed(later: float) -> None:
    assert refusal(signed().wire, expires=NOW + 60 + later) == Reason.STALE


@pytest.mark.parametrize("expires", [NOW + 61 + CLOCK_SKEW_SECONDS, NOW - CLOCK_SKEW_SECONDS - 1, 0.0, 1e12])
def test_expiration_too_far_in_past_or_future_is_refused(expires: float) -> None:
    assert refusal(signed(entry(expires=expires)).wire, expires=expires) == Reason.STALE


@pytest.mark.parametrize("expires", [float("nan"), float("inf"), -float("inf")])
def test_expiration_that_is_no_time_is_refused(expires: float) -> None:
    assert refusal(signed().wire, expires=expires) == Reason.STALE


def test_clocks_may_differ_a_little() -> None:
    check(signed().wire, now=NOW - CLOCK_SKEW_SECONDS)
    check(signed().wire, now=NOW + 60 + CLOCK_SKEW_SECONDS)


def test_oversized_record_is_refused() -> None:
    assert refusal(bytes(MAX_RECORD_BYTES + 1)) == Reason.OVERSIZED


@pytest.mark.parametrize(
    "changes",
    [
        {"role": "king"},
        {"name": "x" * 129},
        {"addresses": ["/ip4/1.2.3.4/tcp/1"] * 17},
        {"addresses": ["x" * 257]},
        {"addresses": "text"},
        {"state_digest": b"short"},
        {"samples_contributed": -1},
        {"samples_per_second": float("nan")},
        {"bandwidth_bytes_per_second": -1.0},
        {"departed": 1},
        {"unknown": 1},
    ],
)
def test_body_that_is_no_roster_entry_is_refused(changes: dict[str, Any]) -> None:
    body = entry().model_dump() | changes
    statement = [RUN, OWNER.peer_id, "roster", 4, 2, encode(body)]
    wire = encode([*statement, OWNER.sign(b"peer/1/signed\x00" + encode(statement))])
    assert refusal(wire) == Reason.MALFORMED


def test_greatest_entry_fits() -> None:
    body = entry(name="ü" * 128, addresses=tuple("x" * 256 for _ in range(16)))
    assert check(signed(body).wire).body == body


def test_directives_lie_under_a_key_of_their_own() -> None:
    body = DirectivesRecord(expires=NOW + 3600, statements=(b"signed",))
    wire = Signer(OWNER, RUN, 1).sign(body, epoch=0).wire
    place = {"key_digest": record_key_digest(RUN, "directives"), "expires": NOW + 3600}
    assert check(wire, **place).body == body
    assert refusal(wire, expires=NOW + 3600) == Reason.WRONG_RUN
    assert refusal(wire, **place, owner=OTHER.peer_id) == Reason.WRONG_SENDER


@given(st.binary(max_size=600))
def test_random_bytes_are_refused(data: bytes) -> None:
    assert refusal(data) in (Reason.MALFORMED, Reason.WRONG_KIND)


@given(st.data())
def test_truncated_or_altered_record_is_refused(data: st.DataObject) -> None:
    wire = signed().wire
    cut = data.draw(st.integers(0, len(wire) - 1))
    refusal(wire[:cut])
    flipped = bytearray(wire)
    flipped[cut] ^= data.draw(st.integers(1, 255))
    refusal(bytes(flipped))


def test_keys_differ_by_run_and_kind() -> None:
    assert len({record_key(run, kind) for run in (RUN, OTHER_RUN) for kind in ("roster", "bans")}) == 4
    assert len(record_key_digest(RUN, "roster")) == 20
