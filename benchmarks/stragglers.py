"""What one slow peer costs the others, in virtual time: gossip, and synchronous rounds with several kinds of deadlines.

    python benchmarks/stragglers.py
    python benchmarks/stragglers.py --slower 100 --json

Peers train the digits at equal speeds but one, which is `--slower` times slower. Throughput is what the others have
trained on in a minute of samples that count, by what they could do without ever waiting; beside it the same without a
straggler, for exchanges and rounds take time of their own. Links: 100 Mbit/s, 20 ms to the middle of the network.

data_parallel   an epoch ends when the swarm has its samples, whoever has trained them
local_sgd       an epoch ends when all have made their steps, or at a deadline: the round's own, which goes by when the
                others were done (`protocols.round.deadlines`); a fixed one after most are done; or none
"""

import argparse
import json
from functools import partial
from typing import Any

from gossip_swarm import digits, learns_digits, simulate, start_gossiping

from dht.interfaces import Clock
from peer.data.registry import open_dataset
from peer.models.flat import FlatModel
from peer.participant import Participant
from peer.simulation.learner import Pace, PacedLearner
from peer.simulation.swarm import SimulatedSwarm
from peer.trainer import Trainer
from protocols.identity import PeerId
from protocols.manifest import AdamW, Averaging, DataParallel, LocalSgd, Manifest, Sgd
from protocols.round.deadlines import Timing

PEERS, SPEED, BATCH = 8, 200.0, 16
"""Samples a second of each peer: a step takes 80 ms."""
STEPS = 50
"""Of an epoch of `local_sgd`: four seconds."""
WARM_UP_SECONDS, MEASURED_SECONDS = 20.0, 60.0
FOREVER_SECONDS = 1e6


def rounds(training: DataParallel | LocalSgd) -> Manifest:
    return digits(10**6, Averaging(quorum=PEERS)).model_copy(update={"training": training})


DATA_PARALLEL = rounds(DataParallel(batch_size=BATCH, target_batch=1600, optimizer=AdamW(learning_rate=0.003)))
LOCAL_SGD = rounds(
    LocalSgd(batch_size=BATCH, inner_steps=STEPS, inner=AdamW(learning_rate=0.001), outer=Sgd(learning_rate=1.0))
)
GOSSIP = digits(10**6, Averaging(quorum=PEERS), batch_size=BATCH)


def fixed(seconds: float) -> Timing:
    """A deadline so long after the middle one of those who are done."""
    return Timing(straggler=seconds, spread=0.0, failure=max(Timing().failure, seconds))


WAYS: dict[str, tuple[Manifest, Timing | None]] = {
    "gossip": (GOSSIP, None),
    "data_parallel": (DATA_PARALLEL, Timing()),
    "local_sgd, adaptive": (LOCAL_SGD, Timing()),
    "local_sgd, 10 s": (LOCAL_SGD, fixed(10.0)),
    "local_sgd, all": (LOCAL_SGD, fixed(FOREVER_SECONDS)),
}


def learns(manifest: Manifest, peer: PeerId, clock: Clock, speed: float) -> PacedLearner:
    trainer = Trainer(manifest, FlatModel.of(manifest.model), open_dataset(manifest.data), peer)
    return PacedLearner(trainer, BATCH, clock, Pace(speed))


def throughput(way: str, slower: float) -> dict[str, float]:
    """The others' samples by what they could do at most, and the straggler's by what it could."""
    manifest, timing = WAYS[way]

    async def scenario(swarm: SimulatedSwarm) -> dict[str, float]:
        for number in range(PEERS):
            speed = SPEED / slower if number == PEERS - 1 else SPEED
            if timing is None:
                await start_gossiping(swarm, number, speed=speed)
            else:
                await swarm.start(number, speed=speed, make=partial(Participant, timing=timing))
        await swarm.network.clock.sleep(WARM_UP_SECONDS)
        before = samples(swarm)
        await swarm.network.clock.sleep(MEASURED_SECONDS)
        done = [after - earlier for after, earlier in zip(samples(swarm), before, strict=True)]
        possible = SPEED * MEASURED_SECONDS
        return {"others": sum(done[:-1]) / (PEERS - 1) / possible, "straggler": done[-1] / possible * slower}

    return simulate(scenario, manifest, learns_digits if timing is None else learns)


def samples(swarm: SimulatedSwarm) -> list[int]:
    """That count, of each peer so far."""
    return [peer.participant.samples_contributed for peer in swarm.members]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slower", type=float, default=10.0)
    parser.add_argument("--ways", type=lambda text: text.split(";"), default=list(WAYS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures: dict[str, Any] = {
        way: {"equal": throughput(way, 1.0), "one slow": throughput(way, options.slower)} for way in options.ways
    }
    print(json.dumps(figures) if options.json else show(figures, options.slower))


def show(figures: dict[str, Any], slower: float) -> str:
    lines = [f"{'':22}{'all equal':>12}{f'one {slower:g}x slower':>18}{'of before':>12}{'the slow one':>14}"]
    for way, run in figures.items():
        equal, others = run["equal"]["others"], run["one slow"]["others"]
        cells = f"{equal:12.1%}{others:18.1%}{others / equal:12.1%}{run['one slow']['straggler']:14.1%}"
        lines.append(f"{way:22}{cells}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
