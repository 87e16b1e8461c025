"""The stage that this peer holds: computes microbatches, and is the learner of its rounds."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import structlog
from torch import Tensor

from dht.interfaces import Clock
from peer.learner import Learner
from peer.models.stages import parameter_count
from peer.signal import Signal
from peer.swarm.compute import Backward, Compute, backward_pass, forward_pass, forward_passes, given_to_trainer
from peer.swarm.gradients import Gradients
from peer.swarm.kept_passes import Passage
from protocols.identity import PeerId
from protocols.manifest import Manifest, Pipeline
from protocols.round.events import Trained
from protocols.state import ModelState
from protocols.swarm.coverage import from_bytes, to_bytes
from protocols.vectors import Vector

T = TypeVar("T")

InThread = Callable[..., Awaitable[Any]]

MOST_REMEMBERED = 8
REMEMBERED_BYTES = 64 * 1024 * 1024
"""The parameters of so many epochs are kept if they take no more: work that somebody is charged with is done again."""
STEP_SECONDS = 0.5
"""How often the round hears of us when nothing is counted."""
SMOOTHING = 0.1

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Order:
    """What a trainer has the stage compute."""

    passage: Passage
    inputs: Tensor | None
    """None: those that were kept of the forward pass."""
    other: Tensor | None = None
    """Of a backward pass: the gradient of the outputs, or on the last stage the targets."""

    @property
    def epoch(self) -> int:
        return self.passage.epoch

    @property
    def given(self) -> Tensor:
        """The inputs, of any work but a backward pass."""
        assert self.inputs is not None
        return self.inputs


class Stage(Learner):
    """Epoch after epoch, of the epoch that its round has to step and of the one before, which others may still need.
    The parameters that are evaluated stay until the next evaluation is due: it takes long, for training goes before it.

    With delayed updates the gradients of an epoch are those at the parameters before the last step, so that it begins
    while the round of the one before goes on (SWARM, appendix; Stich 2019, "Local SGD converges fast", delays).
    """

    def __init__(
        self,
        manifest: Manifest,
        number: int,
        compute: Compute,
        clock: Clock,
        in_thread: InThread | None = None,
    ) -> None:
        """`in_thread` runs what takes long, one call after the other; by default in threads of this stage's own."""
        assert isinstance(manifest.training, Pipeline)
        self.number, self.last = number, number == manifest.training.stages - 1
        self.epoch = 0
        """That its round has to step."""
        self.ready = asyncio.Event()
        """It has a state."""
        self.counted = Signal()
        self.rate = 0.0
        """Microbatches per second that it computes, forward and backward, smoothed; 0: not known."""
        self.dropped = 0
        """Microbatches whose gradient, or a sum of such, is not finite: they count, and add nothing."""
        self._manifest, self._training, self._compute, self._clock = manifest, manifest.training, compute, clock
        self._parameters: dict[int, Vector] = {}
        """State epoch → its parameters."""
        self.parameter_count = parameter_count(manifest, number)
        self._gradients = Gradients(self.parameter_count, manifest.training.batch_size, manifest.training.microbatches)
        self._told: tuple[int, int] | None = None
        """The epoch and what was counted of it, as the round has heard it last."""
        self._seconds = {"forward": 0.0, "backward": 0.0}
        self._in_thread = in_thread or _Thread(f"stage-{number}")
        self._summing = in_thread or _Thread(f"stage-{number}-sums")
        """For the gradients alone, so that nobody who has something counted waits for what is computed."""

    # -- what its round asks -----------------------------------------------------------------------------------------

    async def begin(self, state: ModelState) -> None:
        delayed = self._training.delayed
        self.epoch = state.epoch
        self._parameters[state.epoch] = state.parameters
        evaluated = evaluated_epoch(self._manifest, state.epoch)
        fewest = 2 + delayed
        remembered = max(fewest, min(MOST_REMEMBERED, REMEMBERED_BYTES // state.parameters.nbytes))
        kept = {evaluated, *range(state.epoch + 1 - remembered, state.epoch + 1)}
        self._parameters = {epoch: vector for epoch, vector in self._parameters.items() if epoch in kept}
        opened = range(state.epoch, min(state.epoch + 1 + delayed, self._manifest.epochs))
        await self._summing(lambda: self._gradients.open(opened))
        self.ready.set()
        self.counted.notify()

    async def finish(self, state: ModelState) -> None:
        """There is nothing more to count; the state is there to be evaluated."""
        await self.begin(state)

    async def step(self) -> Trained:
        """When another microbatch is counted, or after a while."""
        if (self.epoch, self._gradients.covered(self.epoch)) == self._told:
            with suppress(TimeoutError):
                async with asyncio.timeout(STEP_SECONDS):
                    await self.counted.wait()
        covered = self._gradients.covered(self.epoch)
        self._told = self.epoch, covered
        samples = covered.bit_count() * self._training.batch_size
        complete = covered.bit_count() >= self._training.microbatches
        return Trained(samples, complete, self.samples_per_second, to_bytes(covered))

    async def update(self) -> tuple[Vector, int] | None:
        update, samples, covered = await self._summing(lambda: self._gradients.update(self.epoch))
        self.covered = to_bytes(covered)
        return (update, samples) if samples else None

    async def give_way(self, covered: bytes) -> None:
        if from_bytes(covered) & ~self._gradients.covered(self.epoch):
            return  # it was done before
        log.info("what we have counted does not count, doing it again", epoch=self.epoch)
        await self.discard(self.epoch)

    async def evaluate(self, state: ModelState) -> dict[str, float]:
        return {}

    # -- what trainers ask -------------------------------------------------------------------------------------------

    @property
    def open_epochs(self) -> dict[int, int]:
        """Epoch → the mask of what is counted, of those that microbatches are taken of."""
        return {epoch: self._gradients.covered(epoch) for epoch in self._gradients.epochs}

    def parameters_of(self, epoch: int) -> Vector | None:
        """Those at which the epoch's gradients are taken; None before they are here, and when they are no more."""
        return self._parameters.get(max(0, epoch - self._training.delayed))

    def parameters_at(self, epoch: int) -> Vector | None:
        """Those of the state after so many epochs, to be evaluated; None before they are here, and when they are no
        more."""
        return self._parameters.get(epoch)

    @property
    def previous(self) -> Vector | None:
        """The parameters before the last step, which a stage that has not come so far may still need."""
        return self._parameters.get(self.epoch - 1)

    @property
    def lacking(self) -> list[int]:
        """Of which epochs before the last step the parameters are not here that such a stage may still need."""
        return [epoch for epoch in self._before if epoch not in self._parameters]

    def remember(self, epoch: int, parameters: Vector) -> None:
        """Takes the parameters of an epoch that was stepped before we came."""
        if epoch in self._before:
            self._parameters.setdefault(epoch, parameters)

    @property
    def _before(self) -> range:
        return range(max(0, self.epoch - 1 - self._training.delayed), self.epoch)

    def has_kept(self, passage: Passage) -> bool:
        """Whether a backward pass of it needs no inputs."""
        return self._compute.has_kept(passage)

    async def forward(self, orders: Sequence[Order]) -> list[Tensor]:
        """Of several microbatches of one epoch and one shape: one after the other as long as each can be kept for its
        backward pass, the others together."""

        def run() -> list[Tensor]:
            parameters, outputs = self._at(orders[0].epoch), list[Tensor]()
            while len(outputs) < len(orders) and self._compute.keeps:
                order = orders[len(outputs)]
                outputs.append(forward_pass(self._compute, parameters, order.given, order.passage))
            if others := [order.given for order in orders[len(outputs) :]]:
                outputs += forward_passes(self._compute, parameters, others)
            return outputs

        return await self._timed("forward", len(orders), run)

    async def evaluate_batch(self, epoch: int, inputs: Tensor) -> Tensor:
        """The outputs of held-out samples at the state of that epoch."""
        parameters = self.parameters_at(epoch)
        if parameters is None:
            raise EpochOver
        return await self._in_thread(lambda: forward_pass(self._compute, parameters, inputs))

    async def backward(self, order: Order) -> tuple[Tensor | None, float | None]:
        """The gradient of the inputs, and the loss; the stage's own waits to be counted.

        Raises Rejected, EpochOver, Forgotten, Moved.
        """
        passage, other = order.passage, order.other
        assert other is not None

        def run() -> tuple[Backward, Vector, bool]:
            parameters = self._at(order.epoch)
            made = backward_pass(self._compute, parameters, order.inputs, other, passage, last=self.last)
            adds = made.finite and self._gradients.can_be_summed(made.gradient)
            return made, made.gradient if adds else np.zeros_like(made.gradient), adds

        made, gradient, adds = await self._timed("backward", 1, run)
        self.dropped += not adds
        trainer = passage.trainer
        await self._summing(lambda: self._gradients.offer(passage.epoch, passage.microbatch, trainer, gradient))
        return made.grad_inputs, made.loss

    async def redo(self, epoch: int, inputs: Tensor, other: Tensor | None) -> tuple[Tensor | None, float | None]:
        """What a forward pass, or with `other` a backward pass, gives its trainer; nothing of it counts.

        Raises Rejected, EpochOver, Moved.
        """
        parameters = self._at(epoch)
        return await self._in_thread(lambda: given_to_trainer(self._compute, parameters, inputs, other, last=self.last))

    async def count(self, epoch: int, microbatches: int, trainer: PeerId) -> int:
        """As `Gradients.count`."""
        before = self._gradients.covered(epoch)
        counted = await self._summing(lambda: self._gradients.count(epoch, microbatches, trainer))
        if self._gradients.covered(epoch) != before:
            self.counted.notify()
        return counted

    async def waiting(self, epoch: int, trainer: PeerId) -> int:
        """As `Gradients.waiting`."""
        return await self._summing(lambda: self._gradients.waiting(epoch, trainer))

    async def discard(self, epoch: int) -> None:
        """As `Gradients.discard`."""
        await self._summing(lambda: self._gradients.discard(epoch))
        self.counted.notify()

    async def close(self) -> None:
        """Returns when all that is under way has ended; cancelled, it does not wait for it. What comes later is refused
        (Moved)."""
        threads = (each for each in (self._in_thread, self._summing) if isinstance(each, _Thread))
        await asyncio.gather(*(thread.close() for thread in threads))

    def _at(self, epoch: int) -> Vector:
        parameters = self.parameters_of(epoch)
        if parameters is None:  # they were here when the work was taken
            raise EpochOver
        return parameters

    async def _timed(self, task: str, microbatches: int, call: Callable[[], T]) -> T:
        def timed() -> tuple[T, float]:
            began = self._clock.monotonic()
            result = call()
            return result, self._clock.monotonic() - began

        result, seconds = await self._in_thread(timed)
        seconds /= microbatches
        known = self._seconds[task]
        self._seconds[task] = known + (seconds - known) * (SMOOTHING if known else 1.0)
        if self._seconds["backward"] and (self.last or self._seconds["forward"]):
            self.rate = 1 / max(1e-6, sum(self._seconds.values()))
            self.samples_per_second = self.rate * self._training.batch_size
        return result


class _Thread:
    """Runs one call after the other. Closed, it runs those that wait, whose callers else would seem to be cancelled."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._closed = False

    async def __call__(self, call: Callable[[], T]) -> T:
        """Raises Moved when it is closed."""
        if self._closed:
            raise Moved
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    async def close(self) -> None:
        self._closed = True
        await asyncio.to_thread(self._executor.shutdown, wait=True)


def evaluated_epoch(manifest: Manifest, epoch: int) -> int | None:
    """Whose state is to be evaluated when the run has come to `epoch`: the last that is due; None: none yet."""
    due = epoch if epoch >= manifest.epochs else epoch - epoch % manifest.evaluation.every_epochs
    return due or None


class EpochOver(Exception):
    """The epoch was stepped while a microbatch of it waited here."""


class Moved(Exception):
    """Another stage is served here by now."""
