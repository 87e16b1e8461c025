"""Connections on which a request was answered, kept for the next one: a dial costs more than a small request."""

import asyncio
from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

from protocols.identity import PeerId

KEEP_SECONDS = 10.0
"""Who asks less often than this dials anew."""
TOGETHER_SECONDS = 1.0
"""Those that are due within this time are closed at once, for each would wake us up by itself."""
MAX_KEPT = 256
"""Those kept longest are closed first."""


class Keepable(Protocol):
    @property
    def intact(self) -> bool: ...
    def close(self) -> None: ...


C = TypeVar("C", bound=Keepable)


class KeptConnections(Generic[C]):
    """Idle connections by peer and kind; whoever takes one has it alone."""

    def __init__(self) -> None:
        self._kept: OrderedDict[C, tuple[PeerId, str, float]] = OrderedDict()
        """Until when, at most; those kept longest first."""
        self._timer: asyncio.TimerHandle | None = None
        """Of the first that was kept when it was set, which may have been taken since."""
        self._by_use: dict[tuple[PeerId, str], list[C]] = {}
        """The same, those used last at the end."""

    def take(self, peer: PeerId, kind: str) -> C | None:
        """The one used last; None when there is none that is still intact."""
        while its := self._by_use.get((peer, kind)):
            connection = its[-1]
            self._let_go(connection)
            if connection.intact:
                return connection
            connection.close()
        return None

    def keep(self, peer: PeerId, kind: str, connection: C) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + KEEP_SECONDS
        self._kept[connection] = (peer, kind, until)
        if self._timer is None:
            self._timer = loop.call_at(until + TOGETHER_SECONDS, self._expire_due)
        self._by_use.setdefault((peer, kind), []).append(connection)
        if len(self._kept) > MAX_KEPT:
            self._expire(next(iter(self._kept)))

    def close(self) -> None:
        for connection in list(self._kept):
            self._expire(connection)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire_due(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._kept:
            connection, (*_, until) = next(iter(self._kept.items()))
            if until > loop.time():
                self._timer = loop.call_at(until + TOGETHER_SECONDS, self._expire_due)
                return
            self._expire(connection)

    def _expire(self, connection: C) -> None:
        self._let_go(connection)
        connection.close()

    def _let_go(self, connection: C) -> None:
        peer, kind, _ = self._kept.pop(connection)
        its = self._by_use[peer, kind]
        its.remove(connection)
        if not its:
            del self._by_use[peer, kind]
