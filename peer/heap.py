"""Python's garbage collector, kept off the event loop's back."""

import gc


def settle_heap() -> None:
    """To be called once everything is imported and set up: what is there now is never looked through again.

    torch and hivemind bring half a million objects that live as long as the process. A full collection passes over all
    of them, and the event loop waits for 100 ms and more each time.
    """
    gc.collect()
    gc.freeze()
