"""A daemon for the control API whose status the test decides: the second implementation of `DaemonView`."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from peer.control import serve_control
from peer.demo import demo_manifest
from peer.direct import status_of_log
from peer.errors import PeerError
from peer.home import Home
from peer.settings import Role
from peer.status import (
    DirectivesStatus,
    PeerStatus,
    PipelineStatus,
    RoundStatus,
    RunStatus,
    SelfStatus,
    StageStatus,
    Status,
)
from protocols.directives import DirectiveLog

OTHER = "12D3KooWQmwSiQhS7pKGX7bPbMLTQpLSHDTMUH8vTXXKcx1AmtL2"
SELF = "12D3KooWAijzJqb4GQVy7tkxBEe3GfnKLk5hDeJSN97u6xjHSwDp"


def make_status(
    run_id: str, epoch: int = 3, *, others: int = 1, other_name: str = "other", role: Role = "trainer"
) -> Status:
    return Status(
        run=RunStatus(
            id=run_id,
            name=run_id.rpartition("-")[0],
            epoch=epoch,
            total_epochs=10,
            state="finished" if epoch == 10 else "training",
            loss=0.25,
            evaluation={"accuracy": 0.964} if role == "trainer" else {},
        ),
        self_=SelfStatus(
            peer_id=SELF,
            name="mine",
            role=role,
            state="training",
            epoch=epoch,
            state_digest="ab" * 32,
            samples_contributed=12_345,
            samples_per_second=678.9,
            addresses=(f"/ip4/127.0.0.1/tcp/4001/p2p/{SELF}",),
        ),
        peers=(
            PeerStatus(
                peer_id=OTHER,
                name=other_name,
                role="trainer",
                epoch=epoch,
                samples_contributed=54_321,
                samples_per_second=432.1,
                last_seen_seconds=1.5,
                state_digest=None,
            ),
        )
        * others,
        last_round=RoundStatus(
            epoch=epoch - 1,
            group_size=2,
            duration_seconds=0.25,
            bytes_sent=1_500_000,
            bytes_received=900,
            rule="mean",
            codec="int8",
            recovered_parts=1,
            missing_senders=0,
        ),
        rejected={"stale": 2},
    )


def make_pipeline_status(run_id: str, epoch: int = 3, *, moving_to: int | None = None, other: str = "other") -> Status:
    """Of two stages: this peer serves the second one, the other the first."""
    status = make_status(run_id, epoch, other_name=other, role="both")
    assert status.self_ is not None
    stages = [
        StageStatus(
            number=number,
            epoch=epoch,
            peers=1,
            leaving=int(number == 0 and moving_to is not None),
            arriving=int(number == moving_to),
            queue=4 - number,
            microbatches_per_second=12.5,
            shares={OTHER: 1.0} if number == 0 else {},
        )
        for number in range(2)
    ]
    pipeline = PipelineStatus(microbatches_done=4321, replays=7, microbatches_per_second=12.5, queue=3, dropped=2)
    return status.model_copy(
        update={
            "self_": status.self_.model_copy(update={"stage": 1}),
            "peers": tuple(peer.model_copy(update={"stage": 0, "moving_to": moving_to}) for peer in status.peers),
            "stages": tuple(stages),
            "pipeline": pipeline,
        }
    )


class ScriptedDaemon:
    def __init__(self, run_id: str) -> None:
        self._status = make_status(run_id)
        self._changed = asyncio.Event()
        self.left = asyncio.Event()
        self.known: DirectiveLog | None = None
        """What the run's organiser has directed."""
        self.model: dict[str, np.ndarray] | None = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3)}

    def become(self, status: Status) -> None:
        self._status = status
        self._changed.set()
        self._changed = asyncio.Event()

    def status(self) -> Status:
        return self._status

    async def changed(self) -> None:
        await self._changed.wait()

    def leave(self) -> None:
        self.left.set()

    def metrics(self) -> bytes:
        return b"peer_epoch 3.0\n"

    def directives(self) -> DirectivesStatus:
        known = self.known or DirectiveLog(demo_manifest())
        return status_of_log(self._status.run.id, known, self._status.run.epoch, 2.0)

    async def direct(self, wire: bytes) -> None:
        if self.known is None:
            raise PeerError("this is no directive of a run without an organiser")
        self.known.take(wire)

    async def export(self, path: Path) -> None:
        if self.model is None:
            raise PeerError("this daemon has no model yet; try again when it has synced")
        save_file(self.model, path)


@contextmanager
def running_daemon(home: Home, run_id: str) -> Iterator["DaemonThread"]:
    """A scripted daemon of `home` in the run, in a thread, until it is asked to leave or the context ends."""
    thread = DaemonThread(home, run_id)
    thread.start()
    try:
        thread.started.result(timeout=10)
        yield thread
    finally:
        thread.call(ScriptedDaemon.leave)
        thread.join(timeout=10)


class DaemonThread(threading.Thread):
    def __init__(self, home: Home, run_id: str) -> None:
        super().__init__()
        self._home = home
        self._run_id = run_id
        self.started: Future[asyncio.AbstractEventLoop] = Future()
        self.daemon_view: ScriptedDaemon | None = None

    def run(self) -> None:
        asyncio.run(self._serve())

    def call(self, method, *arguments) -> None:  # type: ignore[no-untyped-def]
        """Calls a method of the daemon in its loop, unless it has stopped."""
        loop = self.started.result(timeout=10)
        if not loop.is_closed():
            loop.call_soon_threadsafe(method, self.daemon_view, *arguments)

    async def _serve(self) -> None:
        try:
            self.daemon_view = ScriptedDaemon(self._run_id)
            with self._home.lock(self._run_id):
                scratch = self._home.run_directory(self._run_id)
                async with serve_control(self.daemon_view, self._home.control_socket(self._run_id), scratch=scratch):
                    self.started.set_result(asyncio.get_running_loop())
                    await self.daemon_view.left.wait()
        except BaseException as error:
            if not self.started.done():
                self.started.set_exception(error)
            raise
