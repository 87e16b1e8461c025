"""What is trained in a simulation: a problem with a known optimum, or a real model on data that need no files."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peer.errors import UsageError
from peer.gossip.trainer import Objective
from peer.simulation.learner import Trains
from peer.simulation.problems import Logistic, Problem, ProblemObjective, ProblemTrainer, Quadratic
from peer.simulation.scenario import LogisticProblem, QuadraticProblem, Scenario
from protocols.identity import PeerId
from protocols.manifest import Manifest
from protocols.state import ModelState

if TYPE_CHECKING:
    from peer.data.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Training:
    initial: ModelState
    """At epoch 0."""
    trainer: Callable[[PeerId], Trains]
    objective: Callable[[PeerId], Objective]
    """Of a peer in a run without rounds."""
    flipped: "Callable[[], Training] | None" = None
    """The same with the classes of the data in reverse, where there are some."""


def training_of(scenario: Scenario, manifest: Manifest) -> Training:
    """Raises UsageError."""
    match scenario.world.problem:
        case QuadraticProblem(parameters=parameters):
            return _on_problem(manifest, Quadratic(parameters))
        case LogisticProblem(parameters=parameters, samples=samples, penalty=penalty):
            return _on_problem(manifest, Logistic(parameters, samples, penalty))
    return _on_data(scenario.origin, manifest)


def _on_problem(manifest: Manifest, problem: Problem) -> Training:
    return Training(
        problem.initial_state(manifest),
        trainer=lambda peer: ProblemTrainer(manifest, problem, peer),
        objective=lambda peer: ProblemObjective(manifest.run_id, problem, peer),
    )


def _on_data(origin: str, manifest: Manifest) -> Training:
    from peer.data.dataset import DatasetError  # noqa: PLC0415  (loads torch, which a problem does not need)
    from peer.data.registry import open_dataset  # noqa: PLC0415
    from peer.gossip.model_objective import ModelObjective  # noqa: PLC0415
    from peer.models.flat import FlatModel, initial_state  # noqa: PLC0415
    from peer.plugins import PluginError  # noqa: PLC0415
    from peer.trainer import Trainer  # noqa: PLC0415

    def training_on(dataset: "Dataset", flipped: Callable[[], Training] | None = None) -> Training:
        return Training(
            initial,
            trainer=lambda peer: Trainer(manifest, FlatModel.of(manifest.model), dataset, peer),
            objective=lambda peer: ModelObjective(manifest, FlatModel.of(manifest.model), dataset, peer),
            flipped=flipped,
        )

    try:
        dataset = open_dataset(manifest.data)
        initial = initial_state(manifest)
    except (PluginError, DatasetError) as error:
        raise UsageError(f"{origin}: {error}") from error

    def flipped() -> Training:
        from peer.misbehaviour import FlippedLabels  # noqa: PLC0415

        return training_on(FlippedLabels(dataset))

    return training_on(dataset, flipped)
