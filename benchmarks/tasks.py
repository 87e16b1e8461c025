"""What `training.py` trains: model, data, optimizer and goal, the same for every implementation."""

import sysconfig
from dataclasses import dataclass, replace
from pathlib import Path

from peer.data.dataset import Dataset
from peer.data.registry import open_dataset
from peer.shards import shard_of
from protocols.manifest import AdamW, Averaging, Data, DataParallel, Evaluation, LocalSgd, Manifest, Model, Sgd

EPOCHS = 400
FILES = tuple(sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:40])
"""Text that every machine with this Python has."""


@dataclass(frozen=True)
class Task:
    model: Model
    metric: str
    goal: float
    batch_size: int
    target_batch: int
    learning_rate: float
    every_epochs: int
    inner_steps: int
    """Of an epoch of `local_sgd`, which then has as many samples as `every_epochs` epochs of `data_parallel`."""
    files: tuple[Path, ...] = ()

    def manifest(self, peers: int, mode: str = "data_parallel") -> Manifest:
        shards = tuple(shard_of(file) for file in self.files)
        options = {"context": 64} if self.files else {}
        return Manifest(
            name="benchmark",
            model=self.model,
            data=Data(dataset="text" if self.files else "digits", options=options, shards=shards),
            training=self.data_parallel() if mode == "data_parallel" else self.local_sgd(),
            epochs=EPOCHS,
            averaging=Averaging(quorum=peers),
            evaluation=Evaluation(every_epochs=self.every_epochs if mode == "data_parallel" else 1, samples=1024),
        )

    def data_parallel(self) -> DataParallel:
        return DataParallel(
            batch_size=self.batch_size,
            target_batch=self.target_batch,
            optimizer=AdamW(learning_rate=self.learning_rate),
        )

    def local_sgd(self) -> LocalSgd:
        return LocalSgd(
            batch_size=self.batch_size,
            inner_steps=self.inner_steps,
            inner=AdamW(learning_rate=self.learning_rate / 4),
            outer=Sgd(learning_rate=1.0),
        )

    def dataset(self, manifest: Manifest) -> Dataset:
        return open_dataset(manifest.data, self.files)

    def reached(self, evaluation: dict[str, float]) -> bool:
        value = evaluation.get(self.metric)
        return value is not None and (value >= self.goal if self.metric == "accuracy" else value <= self.goal)


TASKS = {
    "digits": Task(
        Model(architecture="cnn", options={"width": 24, "halvings": 2}),
        "accuracy",
        0.97,
        16,
        640,
        0.01,
        every_epochs=5,
        inner_steps=50,
    ),
    "text": Task(
        Model(architecture="gpt", options={"context": 64, "width": 64, "layers": 2, "heads": 4}),
        "bits_per_byte",
        3.6,
        8,
        128,
        0.003,
        every_epochs=10,
        inner_steps=40,
        files=FILES,
    ),
}


def task_of(name: str, target_batch: int | None = None) -> Task:
    """`target_batch`: another than the task's own; longer epochs, of which fewer are needed."""
    return replace(TASKS[name], target_batch=target_batch or TASKS[name].target_batch)
