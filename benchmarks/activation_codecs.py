"""What activations and gradients that travel between stages in fewer bits cost: the loss after as many epochs.

    python benchmarks/activation_codecs.py --task text --epochs 300
    python benchmarks/activation_codecs.py --task digits --json

The stages of a pipeline in one process, as its peers compute them; what passes from one to the next goes through the
codec. All start from the same parameters and see the same microbatches.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

import numpy as np
import torch
from tasks import FILES

from peer.compute_threads import use_threads
from peer.data.dataset import Dataset
from peer.data.registry import open_dataset
from peer.models.stages import join, stage_model, stage_state, whole_model
from peer.shards import shard_of
from peer.swarm.compute import StageCompute
from protocols.activations import TensorBounds, decode_tensor, encode_tensor, relative_error
from protocols.manifest import AdamW, Data, Manifest, Model, Pipeline, Sgd
from protocols.optimizers import make_optimizer
from protocols.sampling import microbatch_indices
from protocols.state import advance

CODECS = ("none", "float16", "int8")
STAGES = 4
JUDGED_SAMPLES = 1024
Figures = dict[str, Any]


def digits(codec: str, epochs: int) -> Manifest:
    """A perceptron."""
    training = Pipeline(stages=STAGES, codec=codec, batch_size=16, target_batch=128, optimizer=Sgd(learning_rate=0.1))
    model = Model(architecture="mlp", options={"inputs": 64, "width": 64, "layers": 4})
    return Manifest(name="codecs", model=model, data=Data(dataset="digits"), training=training, epochs=epochs)


def text(codec: str, epochs: int) -> Manifest:
    """A gpt of bytes."""
    optimizer = AdamW(learning_rate=0.002)
    training = Pipeline(stages=STAGES, codec=codec, batch_size=8, target_batch=32, optimizer=optimizer)
    model = Model(architecture="gpt", options={"context": 64, "width": 64, "layers": 4, "heads": 4})
    data = Data(dataset="text", options={"context": 64}, shards=tuple(shard_of(file) for file in FILES))
    return Manifest(name="codecs", model=model, data=data, training=training, epochs=epochs)


TASKS = {"digits": digits, "text": text}


@dataclass
class Wire:
    """Between two stages."""

    codec: str
    errors: list[float] = field(default_factory=list)
    """Of each tensor, relative to its length."""

    def carry(self, tensor: torch.Tensor) -> torch.Tensor:
        values = tensor.detach().numpy()
        header, payload = encode_tensor(values, self.codec)
        decoded = decode_tensor(header, payload, [TensorBounds.exactly(values.shape)])
        self.errors.append(relative_error(values, decoded))
        return torch.from_numpy(decoded)


class InProcessPipeline:
    """All stages of a manifest's model, each with a state of its own."""

    def __init__(self, manifest: Manifest, dataset: Dataset, run: str) -> None:
        """`run`: whose microbatches it takes."""
        self._manifest, self._dataset, self._training, self._run = manifest, dataset, manifest.training, run
        numbers = range(self._training.stages)
        self.states = [stage_state(manifest, number) for number in numbers]
        self._computes = [
            StageCompute(stage_model(manifest, n), first=n == 0, last=n == numbers[-1], loss=dataset.loss)
            for n in numbers
        ]
        self._optimizer = make_optimizer(self._training.outer, manifest.epochs)
        self.activations, self.gradients = Wire(self._training.codec), Wire(self._training.codec)

    def step(self, epoch: int) -> None:
        totals = [np.zeros(state.parameter_count, np.float32) for state in self.states]
        for number in range(self._training.microbatches):
            for stage, gradient in self._microbatch(epoch, number):
                totals[stage] += gradient
        count = np.float32(self._training.microbatches)
        self.states = [
            advance(state, total / count, self._optimizer) for state, total in zip(self.states, totals, strict=True)
        ]

    def _microbatch(self, epoch: int, number: int) -> Iterator[tuple[int, np.ndarray]]:
        """Each stage's gradient, from the last to the first."""
        size, total = self._training.batch_size, self._dataset.train_size
        inputs, targets = self._dataset.batch(microbatch_indices(self._run, epoch, number, size, total))
        given = [inputs]
        for state, compute in zip(self.states[:-1], self._computes[:-1], strict=True):
            given.append(self.activations.carry(compute.forward(state.parameters, given[-1])))
        made = self._computes[-1].backward_from_loss(self.states[-1].parameters, given[-1], targets)
        yield len(given) - 1, made.gradient
        for stage in reversed(range(len(given) - 1)):
            grad_outputs = self.gradients.carry(made.grad_inputs)
            made = self._computes[stage].backward(self.states[stage].parameters, given[stage], grad_outputs)
            yield stage, made.gradient

    def loss(self) -> float:
        """Of the whole model, on fixed samples of those it trains on."""
        model = whole_model(self._manifest)
        model.load(join([state.parameters for state in self.states]))
        spread = np.linspace(0, self._dataset.train_size - 1, JUDGED_SAMPLES).astype(np.int64)
        inputs, targets = self._dataset.batch(spread)
        with torch.no_grad():
            return self._dataset.loss(model(inputs), targets).item()


def train(task: str, codec: str, epochs: int) -> Figures:
    manifest, run = TASKS[task](codec, epochs), TASKS[task]("none", epochs).run_id
    pipeline = InProcessPipeline(manifest, open_dataset(manifest.data, FILES if manifest.data.shards else ()), run)
    for epoch in range(epochs):
        pipeline.step(epoch)
    errors = {"activations": mean(pipeline.activations.errors), "gradients": mean(pipeline.gradients.errors)}
    return {"loss": pipeline.loss(), "relative_errors": errors}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=list(TASKS), default="text")
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    use_threads(1)
    figures = {codec: train(options.task, codec, options.epochs) for codec in CODECS}
    print(json.dumps(figures) if options.json else show(figures), flush=True)


def show(figures: Figures) -> str:
    lines = []
    for codec, one in figures.items():
        against = one["loss"] / figures["none"]["loss"] - 1
        errors = ", ".join(f"{name} {error:.1e}" for name, error in one["relative_errors"].items())
        lines.append(f"  {codec:8} loss {one['loss']:.5f} ({against:+.2%})   relative error: {errors}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
