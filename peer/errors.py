"""Failures that a user can understand and act on; each message is one sentence, printed as it is."""

from typing import ClassVar


class PeerError(Exception):
    """The operation failed; the message says what was wrong and what to do."""

    exit_code: ClassVar[int] = 1


class UsageError(PeerError):
    """The user asked for something that cannot be: a wrong option, an unknown run, a faulty recipe."""

    exit_code = 2


class NoDaemon(PeerError):
    """No daemon runs here."""

    exit_code = 3
