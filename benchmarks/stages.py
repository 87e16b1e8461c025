"""When a round passes from one stage to the next, read off its state machine."""

import time
from typing import Any

from protocols.round.events import Apply, Event, Exchange, FinishUpdate, PartHeld, UpdateReady
from protocols.round.machine import Round


class StageTimes:
    """Watches one round; `seconds` says how long each stage took."""

    def __init__(self, machine: Round) -> None:
        self._moments: dict[str, float] = {}
        self._handle = machine.handle
        machine.handle = self._watch  # type: ignore[method-assign]

    def seconds(self, began: float, held: float) -> dict[str, float]:
        """From `began` (all have their update) to `held` (the decoded result), which the stages add up to."""
        order = ("close", "encode and commit", "form the group", "exchange and reduce", "vote")
        moments = [began, *(self._moments.get(name, held) for name in order), held]
        names = (*order, "decode")
        return {name: after - before for name, before, after in zip(names, moments, moments[1:], strict=False)}

    def _watch(self, event: Event, now: float) -> list[Any]:
        if isinstance(event, UpdateReady):
            self._moments["encode and commit"] = time.monotonic()
        if isinstance(event, PartHeld):
            self._moments["exchange and reduce"] = time.monotonic()
        actions = self._handle(event, now)
        for action in actions:
            match action:
                case FinishUpdate():
                    self._moments["close"] = time.monotonic()
                case Exchange():
                    self._moments["form the group"] = time.monotonic()
                case Apply():
                    self._moments["vote"] = time.monotonic()
        return actions
