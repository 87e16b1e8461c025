"""Bodies from the network: whatever the bytes, the outcome is a message or `Rejected`, soon and in little memory."""

import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from protocols.encoding import MAX_CONTAINERS, EncodingError, decode, decode_scalars, encode
from protocols.heads import HISTORY, Head
from protocols.message import Message
from protocols.records import RosterEntry
from protocols.rejection import Reason, Rejected
from protocols.round.messages import MAX_CHUNKS, MAX_MEMBERS, Begin, Contribution, Progress, Ready
from tests.protocols.examples import BASE, EXAMPLES, RESULTS
from tests.protocols.refusals import accepted_or_refused, plain_data, refusal
from tests.steps import count_steps

MEBIBYTE = 1024 * 1024
KINDS = sorted({type(example) for example in EXAMPLES}, key=lambda kind: kind.kind)

examples = st.sampled_from(EXAMPLES)
kinds = st.sampled_from(KINDS)


# -- the encoding -----------------------------------------------------------------------------------------------------


@given(plain_data)
def test_what_is_encoded_comes_back(value: Any) -> None:
    data = encode(value)
    assert encode(decode(data, len(data))) == data


@given(st.binary(max_size=4096))
def test_random_bytes_decode_to_plain_data_or_not_at_all(data: bytes) -> None:
    try:
        value = decode(data, 4096)
    except EncodingError:
        return
    encode(value)


HUGE = {
    "list": b"\xdd\xff\xff\xff\xff",
    "map": b"\xdf\xff\xff\xff\xff",
    "bytes": b"\xc6\xff\xff\xff\xff",
    "text": b"\xdb\xff\xff\xff\xff",
    "extension": b"\xc9\xff\xff\xff\xff\x05",
    "lists in lists": (b"\xdd" + (MEBIBYTE - 8).to_bytes(4, "big")) * 500 + bytes(MEBIBYTE - 2500),
    "deep lists": b"\x91" * MEBIBYTE,
    "deep maps": b"\x81\xa0" * (MEBIBYTE // 2),
    "empty lists": b"\xdd" + (MEBIBYTE - 5).to_bytes(4, "big") + b"\x90" * (MEBIBYTE - 5),
    "empty maps": b"\xdd" + (MEBIBYTE - 5).to_bytes(4, "big") + b"\x80" * (MEBIBYTE - 5),
    "many keys": encode({f"{key:x}": 0 for key in range(100_000)}),
}


@pytest.mark.parametrize("data", HUGE.values(), ids=HUGE.keys())
def test_lengths_that_are_declared_cost_neither_memory_nor_work(data: bytes) -> None:
    for call in (lambda: decode(data, len(data)), lambda: decode_scalars(data, 7)):
        tracemalloc.start()
        try:
            steps = count_steps(partial(pytest.raises, EncodingError, call))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 16 * MEBIBYTE
        assert steps < 25 * MAX_CONTAINERS


@pytest.mark.parametrize(
    "data",
    [
        msgpack.packb(msgpack.Timestamp(1, 1)),
        msgpack.packb([1, msgpack.Timestamp(1, 0)]),
        msgpack.packb({"a": msgpack.Timestamp(2**33, 0)}),
        msgpack.packb(msgpack.ExtType(5, b"code")),
        msgpack.packb({"a": [msgpack.ExtType(0, b"abcd")]}),
    ],
)
def test_extension_types_are_refused(data: bytes) -> None:
    with pytest.raises(EncodingError):
        decode(data, 1024)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x82\xa1a\x01\xa1a\x02",  # a key twice
        b"\x81\x01\x02",  # a key that is a number
        b"\x81\xc4\x01a\x02",  # a key that is bytes
        b"\xa2\xff\xfe",  # no UTF-8
        b"\xa3\xed\xa0\x80",  # half a surrogate pair
        b"\x01\x02",  # more than one value
    ],
)
def test_what_is_not_one_plain_value_is_refused(data: bytes) -> None:
    with pytest.raises(EncodingError):
        decode(data, 1024)


# -- message bodies ---------------------------------------------------------------------------------------------------


@given(examples)
def test_every_message_survives_its_encoding(example: Message) -> None:
    assert type(example).from_bytes(example.to_bytes()) == example


@given(kinds, st.binary(max_size=2048) | plain_data.map(encode))
def test_no_kind_of_message_takes_random_bytes_or_random_data(kind: type[Message], data: bytes) -> None:
    assert refusal(lambda: kind.from_bytes(data)) is Reason.MALFORMED


@given(examples, st.data())
def test_truncated_message_is_refused(example: Message, data: st.DataObject) -> None:
    wire = example.to_bytes()
    cut = data.draw(st.integers(0, len(wire) - 1))
    assert refusal(lambda: type(example).from_bytes(wire[:cut])) is Reason.MALFORMED
    assert refusal(lambda: type(example).from_bytes(wire + wire[:1])) is Reason.MALFORMED


@given(examples, st.data())
def test_message_with_a_byte_changed_is_another_message_or_refused(example: Message, data: st.DataObject) -> None:
    wire = bytearray(example.to_bytes())
    wire[data.draw(st.integers(0, len(wire) - 1))] ^= data.draw(st.integers(1, 255))
    changed = accepted_or_refused(lambda: type(example).from_bytes(bytes(wire)))
    assert changed != example


@given(examples, st.data(), plain_data)
def test_field_of_any_other_value_is_refused_or_taken_as_it_is(
    example: Message, data: st.DataObject, value: Any
) -> None:
    """Never an error, and never a value that was made to fit: what is accepted is encoded as it came."""
    fields = example.model_dump() | {data.draw(st.sampled_from(sorted(example.model_dump()))): value}
    wire = encode(fields)
    message = accepted_or_refused(lambda: type(example).from_bytes(wire))
    if message is not None:
        assert decode(message.to_bytes(), 2**30) == decode(wire, 2**30)


@given(examples, st.data())
def test_missing_and_additional_fields_are_refused(example: Message, data: st.DataObject) -> None:
    fields = example.model_dump()
    optional = {name for name, field in type(example).model_fields.items() if not field.is_required()}
    missing = data.draw(st.sampled_from(sorted(fields.keys() - optional)))
    less = encode({name: value for name, value in fields.items() if name != missing})
    more = encode(fields | {data.draw(st.text(max_size=20).filter(lambda name: name not in fields)): 1})
    assert refusal(lambda: type(example).from_bytes(less)) is Reason.MALFORMED
    assert refusal(lambda: type(example).from_bytes(more)) is Reason.MALFORMED


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.kind)
def test_oversized_message_is_refused_before_it_is_read(example: Message) -> None:
    kind = type(example)
    assert refusal(lambda: kind.from_bytes(bytes(kind.limit_bytes + 1))) is Reason.OVERSIZED


def wrong_types(example: Message) -> Iterator[tuple[str, Any]]:
    """For each field, values that Python would take for the right ones."""
    for name, value in example.model_dump().items():
        match value:
            case bool():
                yield from ((name, wrong) for wrong in (0, 1, "true", b"\x01"))
            case int():
                yield from ((name, wrong) for wrong in (True, float(value), str(value), -1, 2**64 - 1, None))
            case float():
                wrongs = (float("nan"), float("inf"), -float("inf"), -1.0, True, str(value), str(value).encode())
                yield from ((name, wrong) for wrong in wrongs)
            case bytes():
                yield from ((name, wrong) for wrong in (value.hex(), list(value), value + b"\x00" * 99))
            case str():
                yield from ((name, wrong) for wrong in (value.encode(), [value], "\x1b[2J" + value, value * 99))
            case tuple():
                wrongs = (encode(value), {str(at): item for at, item in enumerate(value)}, [*value, None], None)
                yield from ((name, wrong) for wrong in wrongs)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.kind)
def test_bool_for_int_text_for_bytes_nan_and_their_like_are_refused(example: Message) -> None:
    for name, wrong in wrong_types(example):
        wire = encode(example.model_dump() | {name: wrong})
        assert refusal(lambda wire=wire: type(example).from_bytes(wire)) is Reason.MALFORMED, (name, wrong)


def with_fields(example: Message, **changes: Any) -> Callable[[], Message]:
    wire = encode(example.model_dump() | changes)
    return lambda: type(example).from_bytes(wire)


PROGRESS = next(example for example in EXAMPLES if isinstance(example, Progress))
READY = next(example for example in EXAMPLES if isinstance(example, Ready))
ROSTER = next(example for example in EXAMPLES if isinstance(example, RosterEntry))
HEAD = next(example for example in EXAMPLES if isinstance(example, Head))
BEGIN = next(example for example in EXAMPLES if example.kind == "begin")
ADOPTING = next(example for example in EXAMPLES if isinstance(example, Begin) and example.adopted)
REASSIGN = next(example for example in EXAMPLES if example.kind == "reassign")
RESULT = next(example for example in EXAMPLES if example.kind == "result")
HELD = [result.model_dump() for result in RESULTS]

OUT_OF_BOUNDS = {
    "a term beyond the last": with_fields(READY, term=2**31 + 1),
    "a weight without a commitment": with_fields(READY, root=None),
    "a commitment without a weight": with_fields(READY, weight=0),
    "results of a term to come": with_fields(READY, held_term=3),
    "results of no term": with_fields(READY, held_term=None),
    "results of no origin": with_fields(READY, origin=()),
    "an origin of no results": with_fields(READY, held_term=None, held=()),
    "results adopted without proof": with_fields(ADOPTING, proof=[]),
    "a proof of nothing": with_fields(BEGIN, proof=[b""]),
    "a term of no results": with_fields(READY, held=[]),
    "too many results": with_fields(READY, held=HELD * 33),
    "a speed of nothing": with_fields(READY, speed=0.0),
    "a speed beyond all": with_fields(READY, speed=1e13),
    "a member without a commitment": with_fields(BEGIN, members=[BEGIN.model_dump()["members"][0] | {"root": None}]),
    "too many members": with_fields(BEGIN, members=BEGIN.model_dump()["members"] * 13),
    "no members": with_fields(BEGIN, members=[]),
    "more owners than members": with_fields(REASSIGN, attempt=MAX_MEMBERS),
    "a part of nobody": with_fields(REASSIGN, part=MAX_MEMBERS),
    "an owner that is no peer": with_fields(REASSIGN, owner="12D3KooW" + "1" * 44),
    "a digest too short": with_fields(PROGRESS, base=BASE[:-1]),
    "masks for other chunks": with_fields(RESULT, included=[1]),
    "no digests": with_fields(HEAD, digests=[]),
    "too long a history": with_fields(HEAD, digests=[BASE] * (HISTORY + 1)),
    "a name that clears the screen": with_fields(ROSTER, name="\x1b[2J\x1b]0;owned\x07"),
    "a name that runs backwards": with_fields(ROSTER, name="\u202egnp.exe"),
    "a name of two lines": with_fields(ROSTER, name="a\nb"),
    "samples beyond counting": with_fields(PROGRESS, samples=2**53 + 1),
}


@pytest.mark.parametrize("open_message", OUT_OF_BOUNDS.values(), ids=OUT_OF_BOUNDS.keys())
def test_out_of_bounds(open_message: Callable[[], Message]) -> None:
    assert refusal(open_message) is Reason.MALFORMED


def test_many_wrong_items_cost_no_more_than_one() -> None:
    wire = encode({"term": 0, "part": 0, "attempt": 0, "chunks": [b"short"] * MAX_CHUNKS})
    with pytest.raises(Rejected) as rejection:
        Contribution.from_bytes(wire)
    assert rejection.value.reason is Reason.MALFORMED
    assert isinstance(rejection.value.__cause__, ValidationError)
    found = [error["loc"] for error in rejection.value.__cause__.errors()]
    assert found == [("begin",), ("chunks", 0)]


def test_refusal_shows_nothing_of_what_the_sender_made_up_unescaped() -> None:
    wire = encode(PROGRESS.model_dump() | {"\x1b[2J" + "x" * 10_000: 1})
    with pytest.raises(Rejected) as rejection:
        Progress.from_bytes(wire)
    assert str(rejection.value).isprintable()
    assert len(str(rejection.value)) < 300
