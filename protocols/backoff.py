"""How long to wait after one more failure."""


def doubled(seconds: float, times: int, most: float) -> float:
    """`seconds`, doubled so many times, `most` at most; times may be any: a daemon may fail for weeks."""
    return min(most, seconds * 2.0 ** min(times, 64))
