"""The model of a run as a file: from the last snapshot in the home, without a daemon; or out of a pipeline's stages."""

from pathlib import Path

from peer.errors import NoDaemon, PeerError
from peer.hints import command
from peer.home import Home
from peer.models.flat import layout_of
from peer.models.registry import build_module
from peer.models.stages import whole_layout
from peer.plugins import PluginError
from peer.snapshots import SnapshotError, SnapshotStore, export_model
from protocols.manifest import Manifest, Pipeline
from protocols.optimizers import make_optimizer
from protocols.state import ModelState


def export_whole(state: ModelState, manifest: Manifest, output: Path) -> None:
    """Writes the joined stages of a pipeline. Raises PeerError."""
    try:
        export_model(state, manifest, whole_layout(manifest), output)
    except (PluginError, SnapshotError) as error:
        raise PeerError(str(error)) from error


def export_last_snapshot(home: Home, run_id: str, output: Path) -> int:
    """Writes the model of the newest whole snapshot to `output` and returns its epoch. Raises PeerError.

    Holds the run's lock meanwhile, so that no daemon starts to write where we read.
    """
    directory = home.snapshots_path(run_id)
    manifest = home.manifest(run_id)
    join = command(home.path, "join", "--run-id", run_id)
    if manifest is None or not directory.is_dir():
        raise NoDaemon(
            f"no daemon of {home.path} is in run {run_id} and no snapshot of it lies there; start one with: {join}"
        )
    if isinstance(manifest.training, Pipeline):
        whole = command(home.path, "export", "--run-id", run_id, "--initial-peers", "ADDRESS", "--output", str(output))
        raise PeerError(
            f"{run_id} is a pipeline, and this home has a part of its model; take it from the members: {whole}"
        )
    try:
        layout = layout_of(build_module(manifest.model))
        slot_names = make_optimizer(manifest.training.outer, manifest.epochs).slot_names
        with home.lock(run_id):
            state = SnapshotStore(directory).latest(
                run=run_id, parameter_count=sum(entry.count for entry in layout), slot_names=slot_names
            )
        if state is None:
            raise PeerError(f"{directory} has no whole snapshot; train with: {join}")
        export_model(state, manifest, layout, output)
    except (PluginError, SnapshotError) as error:
        raise PeerError(str(error)) from error
    return state.epoch
