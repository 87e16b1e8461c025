"""Ends this process though its threads go on: Python waits for them, and a microbatch may take minutes."""

import os
import threading
from collections.abc import Callable


def end_process_within(seconds: float, clean_up: Callable[[], None], exit_code: int = 0) -> None:
    """Unless the process has ended by itself until then, it cleans up and is gone; nothing else is put in order.

    What is lost is what kill -9 would cost. `clean_up` is called in a thread of its own.
    """

    def end() -> None:
        try:
            clean_up()
        finally:
            os._exit(exit_code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
