"""The data set `paced_digits`: the UCI digits, each microbatch of which takes a while and no processor.

Twenty peers that trained for real would take all of a small machine, and the swarm's own work would be lost in it. Here
a microbatch takes as long as it would on a volunteer's machine, and the processor is left to what is looked at.

A plug-in, as anybody may write one: `install` puts it where `PYTHONPATH` finds it.
"""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field
from torch import Tensor

from peer.data.digits import Digits
from peer.data.registry import DatasetKind
from peer.plugins import PluginOptions
from protocols.manifest import Shard
from protocols.sampling import Indices


class Options(PluginOptions):
    batch_seconds: Annotated[float, Field(ge=0, le=60)]
    """How long a microbatch takes."""


class PacedDigits(Digits):
    def __init__(self, batch_seconds: float) -> None:
        super().__init__()
        self._batch_seconds = batch_seconds

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        time.sleep(self._batch_seconds)
        return super().batch(indices)


def _open(options: Options, _shards: Sequence[Shard], _files: Sequence[Path]) -> PacedDigits:
    return PacedDigits(options.batch_seconds)


KIND = DatasetKind(Options, _open)


def install(directory: Path) -> None:
    """This module, and the entry point that names it, as a package manager would leave them in `directory`."""
    source = Path(__file__)
    about = directory / f"{source.stem}-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {source.stem}\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[peer.datasets]\n{source.stem} = {source.stem}:KIND\n")
    shutil.copy(source, directory)
