from dataclasses import dataclass


@dataclass
class Load:
    peer: str
    stage: int
    rate: float
    queue: int
    moving_to: int | None
    since: float


@dataclass
class Move:
    peer: str
    source: int
    target: int


def neediest_stage(loads, stages):
    return min(
        range(stages), key=lambda s: sum((l.moving_to if l.moving_to is not None else l.stage) == s for l in loads)
    )


def next_move(loads, stages):
    return None
