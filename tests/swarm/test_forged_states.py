"""A joiner among liars: it takes the state that most members sign, verifies every block, and the rounds go on."""

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from peer.home import Home
from peer.models.flat import initial_state
from protocols.manifest import AdamW, Averaging, Data, DataParallel, Manifest, Model
from protocols.state import ModelState
from tests.swarm.liars import Corrupter, Forger, lying
from tests.swarm.processes import LISTEN, Swarm, finished
from tests.swarm.watcher import Watcher, rounds_go_on

MANIFEST = Manifest(
    name="among-liars",
    model=Model(architecture="mlp", options={"width": 700, "layers": 2}),  # a state of several blocks
    data=Data(dataset="digits"),
    training=DataParallel(batch_size=16, target_batch=800, optimizer=AdamW(learning_rate=0.001)),
    epochs=80,
    averaging=Averaging(codec="int8"),
)

LONGEST_PAUSE = 6.0
"""Times the usual, while a process starts beside it. Who waits for a member in vain waits ten seconds."""


@pytest.mark.alone
async def test_a_joiner_refuses_forged_states_and_corrupted_blocks(swarm: Swarm, tmp_path: Path) -> None:
    honest = [swarm.daemon(name) for name in ("first", "second", "third")]
    for daemon in honest:
        _know(daemon.home)
        daemon.start(MANIFEST.run_id, *LISTEN)
    for daemon in honest:
        await asyncio.to_thread(daemon.wait, "in a round of three", in_a_round_of_three)

    initial = initial_state(MANIFEST)
    forged = ModelState(initial.run, 10**6, initial.parameters + 1, initial.slots)
    runtime = Path(swarm.environment["PEER_RUNTIME_DIR"])
    async with (
        lying(Forger, tmp_path / "forger", runtime, MANIFEST.run_id, forged) as forger,
        lying(Corrupter, tmp_path / "corrupter", runtime, MANIFEST.run_id, initial) as corrupter,
    ):
        corrupter.honest = honest[0].status()["self"]["peer_id"]
        joiner = swarm.daemon("joiner")
        _know(joiner.home)
        with (
            closing(Watcher(honest[0], MANIFEST.run_id)) as first,
            closing(Watcher(joiner, MANIFEST.run_id)) as watched,
        ):
            at = await asyncio.to_thread(first.wait, "five epochs on", lambda _: len(first.moments) > 5, 60)
            with rounds_go_on(first, epochs=3, longest_pause=LONGEST_PAUSE):
                joiner.start(MANIFEST.run_id, *LISTEN)
                joined = await asyncio.to_thread(joiner.wait, "contributing", contributing)
            assert min(watched.digests) >= at.self_.epoch
        assert forger.asked > 0
        assert corrupter.asked > 0
        assert joined["rejected"]["wrong_digest"] >= 1
        assert joined["self"]["epoch"] < forged.epoch
        ends = [await asyncio.to_thread(daemon.wait, "at the end", finished, 240) for daemon in [*honest, joiner]]
    assert {end["self"]["epoch"] for end in ends} == {MANIFEST.epochs}
    assert len({end["self"]["state_digest"] for end in ends}) == 1


def contributing(status: dict[str, Any]) -> bool:
    return status["self"]["samples_contributed"] > 0


def in_a_round_of_three(status: dict[str, Any]) -> bool:
    return status["last_round"] is not None and status["last_round"]["group_size"] == 3


def _know(home: Path) -> None:
    Home(home).store_manifest(MANIFEST)
