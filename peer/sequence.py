"""Where this member's sequence numbers start: above all that it has ever used, even when the clock was set back.

They start at the wall clock in nanoseconds, so that a home needs nothing but a clock; but others accept no number below
one that they have seen, and a clock may be wrong. So every start reserves a range in a file, and begins above the last.
"""

from pathlib import Path

import structlog

from peer.files import write_atomically

RESERVED = 2**36
"""More messages than one start can send before the clock, at one a nanosecond, has overtaken them."""
_MAX_SEQUENCE = 2**62
_MAX_FILE_BYTES = 32

log = structlog.get_logger()


def first_sequence(path: Path, wall_nanoseconds: int) -> int:
    """Reserves a range in the file `path` and returns its first number."""
    first = max(wall_nanoseconds, _reserved_before(path))
    try:
        write_atomically(path, lambda temporary: temporary.write_text(f"{first + RESERVED}\n"))
    except OSError as error:
        log.warning(
            "sequence numbers cannot be reserved; should the clock be set back before the next start, "
            "others will not hear this member for a while",
            error=str(error),
        )
    return first


def _reserved_before(path: Path) -> int:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE_BYTES).strip()
    except FileNotFoundError:
        return 0
    except OSError as error:
        log.warning("the reserved sequence numbers cannot be read", error=str(error))
        return 0
    if not (text.isdigit() and int(text) < _MAX_SEQUENCE):
        log.warning("the reserved sequence numbers are damaged and not used", path=path.name)
        return 0
    return int(text)
