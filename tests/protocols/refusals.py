"""What tests of hostile input ask of a decoder, and what they feed it."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st

from protocols.rejection import Reason, Rejected

plain_data = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)
"""Everything that the encoding knows."""


def refusal(call: Callable[[], Any]) -> Reason:
    """Why `call` was refused; fails when it was not."""
    with pytest.raises(Rejected) as rejection:
        call()
    return rejection.value.reason


def accepted_or_refused(call: Callable[[], Any]) -> Any:
    """The value of `call`, None when it was refused; any other exception fails the test."""
    try:
        return call()
    except Rejected:
        return None
