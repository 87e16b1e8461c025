"""What the pipelines of `swarm.py` and its kin train: a byte-level gpt on the standard library's source."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from tasks import FILES

from peer.data.dataset import Dataset
from peer.data.registry import open_dataset
from peer.recipes import Recipe, to_manifest
from peer.shards import shard_of
from protocols.manifest import Manifest

EPOCHS = 100_000
RECIPE = """
name = "pipeline"
epochs = {epochs}
test = true

[model]
architecture = "gpt"
options = {{ width = {width}, layers = {layers}, heads = {heads}, context = {context} }}

[data]
dataset = "text"
files = {files}
options = {{ context = {context} }}

[training]
{training}
batch_size = {batch_size}
target_batch = {target_batch}
optimizer = {{ algorithm = "adamw", learning_rate = 0.0003 }}

[evaluation]
every_epochs = {epochs}
"""


@dataclass(frozen=True)
class PipelineTask:
    """A model, how it is cut, and how long an epoch is. One stage: the whole model on one peer, as `data_parallel`."""

    stages: int = 4
    width: int = 256
    layers: int = 8
    context: int = 128
    batch_size: int = 8
    microbatches: int = 32
    """Of an epoch."""
    codec: str = "none"
    delayed: int = 0
    """1: microbatches of the next epoch flow while this one's round goes on."""

    @property
    def epoch_samples(self) -> int:
        return self.batch_size * self.microbatches

    @property
    def recipe(self) -> str:
        pipeline = f'protocol = "swarm"\nstages = {self.stages}\ncodec = "{self.codec}"\ndelayed = {self.delayed}'
        return RECIPE.format(
            epochs=EPOCHS,
            width=self.width,
            layers=self.layers,
            heads=max(1, self.width // 32),
            context=self.context,
            files=[str(file) for file in FILES],
            training=pipeline if self.stages > 1 else 'mode = "data_parallel"',
            batch_size=self.batch_size,
            target_batch=self.epoch_samples,
        )

    @property
    def manifest(self) -> Manifest:
        """As `peer run create` makes it of the recipe, but for the organiser."""
        recipe = Recipe("the benchmark", Path.cwd(), tomllib.loads(self.recipe))
        return to_manifest(recipe, shards=[shard_of(file) for file in FILES])

    def dataset(self) -> Dataset:
        return open_dataset(self.manifest.data, FILES)
