import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.blocks import BLOCK_BYTES, cut
from protocols.manifest import AdamW, Sgd
from protocols.optimizers import make_optimizer
from protocols.rejection import Reason, Rejected
from protocols.state import HEADER_BYTES, ModelState, advance, state_size

RUN = "tests-" + "a" * 26
SHAPE = {"run": RUN, "parameter_count": 5, "slot_names": ("first_moment", "second_moment")}


def a_state(epoch=7, count=5):
    generator = np.random.default_rng(epoch)
    parameters, first, second = generator.standard_normal((3, count)).astype(np.float32)
    return ModelState(RUN, epoch, parameters, {"first_moment": first, "second_moment": second})


def bytes_of(state):
    return b"".join(state.buffers())


def test_a_state_survives_its_byte_form():
    state = a_state()
    copy = ModelState.from_buffer(bytes_of(state), **SHAPE)
    assert (copy.run, copy.epoch, copy.digest) == (state.run, state.epoch, state.digest)
    assert copy.parameters.tobytes() == state.parameters.tobytes()
    assert list(copy.slots) == list(state.slots)
    assert len(bytes_of(state)) == state_size(5, 2)


def test_the_byte_form_and_digest_are_fixed():
    """Peers of different versions and machines compare these."""
    state = ModelState(RUN, 3, np.array([1.0, -2.0], np.float32), {"momentum": np.zeros(2, np.float32)})
    assert bytes_of(state)[-24:].hex() == "0300000000000000" + "0000803f000000c0" + "00" * 8
    assert state.digest.hex() == "99ed8075430b026f6d9655daa0136d80b2aa52e5a210f43c2da0d669c6ccd46e"


def test_states_that_differ_anywhere_have_different_digests():
    state = a_state()
    parameters = state.parameters.copy()
    parameters[4] = np.nextafter(parameters[4], np.float32(np.inf))
    others = [
        ModelState(RUN, 8, state.parameters, state.slots),
        ModelState("other-" + "a" * 26, 7, state.parameters, state.slots),
        ModelState(RUN, 7, parameters, state.slots),
        ModelState(RUN, 7, state.parameters, dict(reversed(state.slots.items()))),
    ]
    assert len({other.digest for other in [state, *others]}) == 5


def test_a_state_cannot_be_written_to():
    state = a_state()
    for vector in (state.parameters, *state.slots.values()):
        with pytest.raises(ValueError, match="read-only"):
            vector[0] = 1


def test_blocks_of_a_large_state_make_up_the_state():
    state = a_state(count=BLOCK_BYTES // 4)
    blocks = [b"".join(cut(state.buffers(), number)) for number in range(len(state.index.blocks))]
    for number, block in enumerate(blocks):
        state.index.check(number, block)
    copy = ModelState.from_buffer(b"".join(blocks), **SHAPE | {"parameter_count": BLOCK_BYTES // 4})
    assert copy.digest == state.digest


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[:-1], Reason.WRONG_SHAPE),
        (lambda data: data + b"\x00", Reason.WRONG_SHAPE),
        (lambda data: b"", Reason.WRONG_SHAPE),
        (lambda data: b"\x00" + data[1:], Reason.MALFORMED),
        (lambda data: data[: HEADER_BYTES - 1] + b"\xff" + data[HEADER_BYTES:], Reason.MALFORMED),
        (lambda data: data[: HEADER_BYTES - 9] + b"\x01" + data[HEADER_BYTES - 8 :], Reason.MALFORMED),
        (lambda data: data[:-4] + np.float32(np.nan).tobytes(), Reason.NON_FINITE),
        (lambda data: data[:256] + np.float32(np.inf).tobytes() + data[260:], Reason.NON_FINITE),
    ],
)
def test_a_damaged_byte_form_is_refused(damage, reason):
    with pytest.raises(Rejected) as refusal:
        ModelState.from_buffer(damage(bytes_of(a_state())), **SHAPE)
    assert refusal.value.reason == reason


@pytest.mark.parametrize("other", [{"run": "other-" + "a" * 26}, {"slot_names": ("second_moment", "first_moment")}])
def test_a_state_of_another_run_or_optimizer_is_refused(other):
    with pytest.raises(Rejected, match="header"):
        ModelState.from_buffer(bytes_of(a_state()), **SHAPE | other)


@settings(max_examples=200)
@given(data=st.binary(min_size=state_size(5, 2), max_size=state_size(5, 2)), header=st.booleans())
def test_random_bytes_are_a_finite_state_or_refused(data, header):
    data = bytes_of(a_state())[:HEADER_BYTES] + data[HEADER_BYTES:] if header else data
    try:
        state = ModelState.from_buffer(memoryview(data), **SHAPE)
    except Rejected:
        return
    assert all(np.isfinite(vector).all() for vector in (state.parameters, *state.slots.values()))


def test_vectors_of_another_type_or_length_are_an_error():
    zeros = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="parameters: float64"):
        ModelState(RUN, 0, zeros.astype(np.float64), {})
    with pytest.raises(ValueError, match="momentum"):
        ModelState(RUN, 0, zeros, {"momentum": np.zeros(2, np.float32)})


def test_members_that_advance_with_the_same_aggregate_have_the_same_state():
    optimizer = make_optimizer(AdamW(learning_rate=0.1), 10)
    ours = theirs = ModelState(RUN, 0, np.ones(5, np.float32), optimizer.initial_slots(5))
    for seed in range(5):
        aggregate = np.random.default_rng(seed).standard_normal(5).astype(np.float32)
        ours, theirs = advance(ours, aggregate, optimizer), advance(theirs, aggregate.copy(), optimizer)
    assert ours.epoch == 5
    assert ours.digest == theirs.digest
    assert (ours.parameters != 1).all()


def test_a_step_that_overflows_changes_the_epoch_alone():
    optimizer = make_optimizer(Sgd(learning_rate=10.0, momentum=0.9), 10)
    state = ModelState(RUN, 0, np.ones(5, np.float32), optimizer.initial_slots(5))
    after = advance(state, np.full(5, 3e38, np.float32), optimizer)
    assert after.epoch == 1
    assert after.parameters.tobytes() == state.parameters.tobytes()
    assert after.slots["momentum"].tobytes() == state.slots["momentum"].tobytes()
