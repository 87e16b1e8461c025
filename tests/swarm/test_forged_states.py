"""A joiner among liars: it takes the state that most members sign, verifies every block, and the rounds go on."""

import asyncio
from pathlib import Path
from typing import Any

from peer.home import Home
from peer.models.flat import initial_state
from protocols.manifest import AdamW, Averaging, Data, DataParallel, Manifest, Model
from protocols.state import ModelState
from tests.swarm.liars import Corrupter, Forger, lying
from tests.swarm.processes import Swarm, finished

LISTEN = ("--listen", "/ip4/127.0.0.1/tcp/0")
MANIFEST = Manifest(
    name="among-liars",
    model=Model(architecture="mlp", options={"width": 700, "layers": 2}),  # a state of several blocks
    data=Data(dataset="digits"),
    training=DataParallel(batch_size=16, target_batch=800, optimizer=AdamW(learning_rate=0.001)),
    epochs=120,
    averaging=Averaging(codec="int8"),
)


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
        joiner.start(MANIFEST.run_id, *LISTEN)
        joined = await asyncio.to_thread(joiner.wait, "contributing", lambda s: s["self"]["samples_contributed"] > 0)
        assert forger.asked > 0
        assert corrupter.asked > 0
        assert joined["rejected"]["wrong_digest"] >= 1
        assert joined["self"]["epoch"] < forged.epoch
        ends = [await asyncio.to_thread(daemon.wait, "at the end", finished, 240) for daemon in [*honest, joiner]]
    assert {end["self"]["epoch"] for end in ends} == {MANIFEST.epochs}
    assert len({end["self"]["state_digest"] for end in ends}) == 1


def in_a_round_of_three(status: dict[str, Any]) -> bool:
    return status["last_round"] is not None and status["last_round"]["group_size"] == 3


def _know(home: Path) -> None:
    Home(home).store_manifest(MANIFEST)
