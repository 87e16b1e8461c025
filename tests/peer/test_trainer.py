import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from peer.data.dataset import Dataset
from peer.models.flat import FlatModel, initial_state
from peer.trainer import StepReport, Trainer
from protocols.identity import Identity
from protocols.manifest import AdamW, Data, DataParallel, LocalSgd, Manifest, Model, Sgd
from protocols.optimizers import make_optimizer
from protocols.sampling import sample_indices
from protocols.state import ModelState, advance

PEERS = [Identity.from_seed(bytes([number]) * 32).peer_id for number in (1, 2)]
DATA_PARALLEL = DataParallel(batch_size=4, target_batch=16, optimizer=Sgd(learning_rate=0.1))
LOCAL_SGD = LocalSgd(batch_size=4, inner_steps=5, inner=AdamW(learning_rate=0.01))


class Points(Dataset):
    """Which of three regions a point of the plane lies in; the samples numbered in `poisoned` hold NaN."""

    train_size = 50

    def __init__(self, poisoned=()):
        generator = np.random.default_rng(0)
        points = generator.standard_normal((80, 2)).astype(np.float32)
        self.regions = torch.from_numpy(np.digitize(points.sum(axis=1), [-0.5, 0.5]))
        points[list(poisoned)] = np.nan
        self.points = torch.from_numpy(points)
        self.asked: list[list[int]] = []

    def batch(self, indices):
        self.asked.append(indices.tolist())
        return self.points[indices], self.regions[indices]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, targets)

    def evaluate(self, model, limit):
        with torch.inference_mode():
            right = model(self.points[50:]).argmax(dim=1) == self.regions[50:]
        return {"accuracy": right[:limit].float().mean().item()}


def manifest_of(training):
    model = Model(architecture="mlp", options={"inputs": 2, "width": 16, "classes": 3})
    return Manifest(name="tests", model=model, data=Data(dataset="digits"), training=training, epochs=30)


def trainer_of(training, dataset=None, peer=PEERS[0]):
    manifest = manifest_of(training)
    trainer = Trainer(manifest, FlatModel.of(manifest.model), dataset or Points(), peer)
    return trainer, initial_state(manifest)


def gradient_at(parameters, indices):
    model = FlatModel.of(manifest_of(DATA_PARALLEL).model)
    model.load(parameters)
    points = Points()
    points.loss(model(points.points[indices]), points.regions[indices]).backward()
    return model.gradient.numpy()


def test_the_data_parallel_update_is_the_gradient_averaged_over_the_samples():
    trainer, state = trainer_of(DATA_PARALLEL)
    trainer.start_epoch(state)
    for _ in range(3):
        assert trainer.train_microbatch().samples == 4
    indices = sample_indices(state.run, 0, PEERS[0], start=0, count=12, population=50)
    assert trainer.samples == 12
    np.testing.assert_allclose(trainer.update(), gradient_at(state.parameters, indices), rtol=1e-4, atol=1e-6)
    assert not trainer.complete


def test_updates_weighted_by_samples_make_the_gradient_of_the_whole_swarm():
    totals, everything = [], []
    for peer, microbatches in zip(PEERS, (1, 3), strict=True):
        trainer, state = trainer_of(DATA_PARALLEL, peer=peer)
        trainer.start_epoch(state)
        for _ in range(microbatches):
            trainer.train_microbatch()
        totals.append(trainer.update() * trainer.samples)
        everything += list(sample_indices(state.run, 0, peer, start=0, count=trainer.samples, population=50))
    np.testing.assert_allclose(sum(totals) / 16, gradient_at(state.parameters, everything), rtol=1e-4, atol=1e-6)


def test_the_local_sgd_update_is_where_the_inner_steps_led():
    trainer, state = trainer_of(LOCAL_SGD)
    trainer.start_epoch(state)
    reference = torch.nn.Parameter(torch.from_numpy(state.parameters.copy()))
    inner = torch.optim.AdamW([reference], lr=0.01, weight_decay=0)
    for step in range(5):
        assert not trainer.complete
        trainer.train_microbatch()
        indices = sample_indices(state.run, 0, PEERS[0], start=4 * step, count=4, population=50)
        reference.grad = torch.from_numpy(gradient_at(reference.detach().numpy(), indices))
        inner.step()
    assert trainer.complete
    assert trainer.samples == 20
    np.testing.assert_allclose(trainer.update(), state.parameters - reference.detach().numpy(), atol=1e-6)


def test_the_inner_optimizers_state_outlives_the_epoch():
    """The same epoch twice gives another update the second time: Adam's moments are warm."""
    trainer, state = trainer_of(LOCAL_SGD)
    updates = []
    for _ in range(2):
        trainer.start_epoch(state)
        while not trainer.complete:
            trainer.train_microbatch()
        updates.append(trainer.update())
    assert not np.allclose(updates[0], updates[1], atol=1e-4)


@pytest.mark.parametrize("training", [DATA_PARALLEL, LOCAL_SGD])
def test_two_trainers_of_one_peer_make_the_same_update(training):
    updates = []
    for _ in range(2):
        trainer, state = trainer_of(training)
        trainer.start_epoch(state)
        for _ in range(5):
            trainer.train_microbatch()
        updates.append(trainer.update().tobytes())
    assert updates[0] == updates[1]


def test_a_new_epoch_forgets_the_old_one():
    trainer, state = trainer_of(DATA_PARALLEL)
    trainer.start_epoch(state)
    trainer.train_microbatch()
    later = ModelState(state.run, 1, state.parameters, state.slots)
    trainer.start_epoch(later)
    assert trainer.samples == 0
    trainer.train_microbatch()
    indices = sample_indices(state.run, 1, PEERS[0], start=0, count=4, population=50)
    np.testing.assert_allclose(trainer.update(), gradient_at(state.parameters, indices), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("training", [DATA_PARALLEL, LOCAL_SGD])
def test_without_samples_the_update_is_zero(training):
    trainer, state = trainer_of(training)
    trainer.start_epoch(state)
    assert trainer.samples == 0
    assert not trainer.update().any()


@pytest.mark.parametrize("training", [DATA_PARALLEL, LOCAL_SGD])
def test_an_update_is_the_callers_own(training):
    """It may still be on its way when the next epoch begins."""
    trainer, state = trainer_of(training)
    trainer.start_epoch(state)
    trainer.train_microbatch()
    update = trainer.update()
    before = update.copy()
    trainer.start_epoch(state)
    trainer.train_microbatch()
    assert np.array_equal(update, before)


@pytest.mark.parametrize("training", [DATA_PARALLEL, LOCAL_SGD])
def test_a_microbatch_that_is_not_finite_is_dropped_and_counted(training):
    order = sample_indices(manifest_of(training).run_id, 0, PEERS[0], start=0, count=12, population=50)
    trainer, state = trainer_of(training, Points(poisoned=[order[5]]))  # the second microbatch
    trainer.start_epoch(state)
    reports = [trainer.train_microbatch() for _ in range(3)]
    assert [report.samples for report in reports] == [4, 0, 4]
    assert np.isnan(reports[1].loss)
    assert (trainer.samples, trainer.dropped) == (8, 1)
    update = trainer.update()
    assert np.isfinite(update).all()
    if training is DATA_PARALLEL:
        clean = gradient_at(state.parameters, np.delete(order, range(4, 8)))
        np.testing.assert_allclose(update, clean, rtol=1e-4, atol=1e-6)


def test_inner_steps_that_run_away_contribute_nothing():
    away = LocalSgd(batch_size=4, inner_steps=8, inner=Sgd(learning_rate=1000.0, momentum=0.99))
    trainer, state = trainer_of(away)
    trainer.start_epoch(ModelState(state.run, 0, state.parameters * np.float32(1e12), state.slots))
    while not trainer.complete:
        trainer.train_microbatch()
    update = trainer.update()
    assert np.isfinite(update).all()
    assert trainer.samples + 4 * trainer.dropped == 32
    assert update.any() == (trainer.samples > 0)


def test_evaluating_between_microbatches_changes_nothing():
    trainer, state = trainer_of(LOCAL_SGD)
    undisturbed, _ = trainer_of(LOCAL_SGD)
    for each in (trainer, undisturbed):
        each.start_epoch(state)
        each.train_microbatch()
    assert trainer.evaluate(state).keys() == {"accuracy"}
    for each in (trainer, undisturbed):
        each.train_microbatch()
    assert trainer.update().tobytes() == undisturbed.update().tobytes()


def test_the_inner_rate_follows_the_runs_schedule():
    inner = Sgd(learning_rate=0.1, warmup_epochs=10)
    updates = []
    for epoch in (0, 9):
        trainer, state = trainer_of(LocalSgd(batch_size=50, inner_steps=1, inner=inner))
        trainer.start_epoch(ModelState(state.run, epoch, state.parameters, state.slots))
        trainer.train_microbatch()  # the whole population, so the same gradient in both epochs
        updates.append(trainer.update())
    np.testing.assert_allclose(10 * updates[0], updates[1], atol=1e-5)


CALM_LOCAL_SGD = LOCAL_SGD.model_copy(update={"batch_size": 10, "outer": Sgd(learning_rate=0.7)})
"""With momentum and batches of four, of which samples a run draws by its id it depends how the last losses are."""


@pytest.mark.parametrize("training", [DATA_PARALLEL, CALM_LOCAL_SGD])
def test_a_run_of_one_learns(training):
    trainer, state = trainer_of(training)
    optimizer = make_optimizer(training.outer, 30)
    before = trainer.evaluate(state)["accuracy"]
    losses = []
    for _ in range(30):
        trainer.start_epoch(state)
        for _ in range(5):
            report = trainer.train_microbatch()
            assert isinstance(report, StepReport)
            losses.append(report.loss)
        state = advance(state, trainer.update(), optimizer)
    assert np.mean(losses[-20:]) < 0.7 * np.mean(losses[:20])
    assert trainer.evaluate(state)["accuracy"] > max(before, 0.6)
