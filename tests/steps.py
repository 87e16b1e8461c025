"""How much work a call is, in a number that is the same on every machine."""

import sys
from collections.abc import Callable
from typing import Any


def count_steps(call: Callable[[], Any]) -> int:
    """Calls and returns of functions in this thread; time would count other threads and Python's collector, too."""
    steps = 0

    def count(_frame: Any, _event: str, _argument: Any) -> None:
        nonlocal steps
        steps += 1

    sys.setprofile(count)
    try:
        call()
    finally:
        sys.setprofile(None)
    return steps
