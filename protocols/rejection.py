"""Why an input from the network was refused; the metrics and `peer status` count by these reasons."""

from enum import StrEnum


class Reason(StrEnum):
    MALFORMED = "malformed"
    OVERSIZED = "oversized"
    WRONG_RUN = "wrong_run"
    WRONG_KIND = "wrong_kind"
    WRONG_SENDER = "wrong_sender"
    BAD_SIGNATURE = "bad_signature"
    STALE = "stale"
    REPLAYED = "replayed"
    UNEXPECTED = "unexpected"
    NON_FINITE = "non_finite"
    WRONG_SHAPE = "wrong_shape"
    WRONG_DIGEST = "wrong_digest"
    BUSY = "busy"
    ABSENT = "absent"
    NOT_ADMITTED = "not_admitted"
    BANNED = "banned"


class Rejected(ValueError):
    """An input from the network was refused; nothing has changed. `sender` is charged where it is known."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
