"""How late an event loop calls what is due: what every message of a peer may have to wait."""

import asyncio

import numpy as np

PERIOD_SECONDS = 0.001


class LoopLag:
    """Measures between `start` and `stop`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds: list[float] = []
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._seconds.clear()
        self._arm()

    def stop(self) -> dict[str, float]:
        """The 99th percentile and the largest lag, in seconds, of a call that is due every millisecond.

        A lag that covers several due calls counts for each of them: that is what events that arrive at random see.
        """
        if self._timer is not None:
            self._timer.cancel()
        missed = [lag - late for lag in self._seconds for late in np.arange(0, lag, PERIOD_SECONDS)]
        lags = np.array(missed or [0.0])
        return {"p99": float(np.percentile(lags, 99)), "largest": float(lags.max())}

    def _arm(self) -> None:
        self._due = self._loop.time() + PERIOD_SECONDS
        self._timer = self._loop.call_later(PERIOD_SECONDS, self._called)

    def _called(self) -> None:
        self._seconds.append(max(0.0, self._loop.time() - self._due))
        self._arm()
