"""What a peer computes on the stage that it holds. Blocking, for a worker thread; one call at a time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from peer.data.dataset import Loss
from peer.models.flat import FlatModel
from peer.swarm.kept_passes import KEPT_BYTES, ForwardPass, KeptPasses, Passage, SavedBytes
from protocols.rejection import Reason, Rejected
from protocols.vectors import Vector, all_finite


@dataclass(frozen=True, slots=True)
class Backward:
    """What a backward pass gives."""

    grad_inputs: Tensor | None
    """Of the shape of the inputs; None on the first stage, whose inputs are data."""
    gradient: Vector
    """Of all parameters, flat; nothing changes it any more."""
    loss: float | None
    """On the last stage."""
    finite: bool
    """Whether all of these are."""


class Forgotten(Exception):
    """A backward pass without inputs, whose forward pass is not kept any more."""


class Compute(Protocol):
    """`StageCompute`, or what stands for it where computing is emulated."""

    @property
    def keeps(self) -> bool:
        """Whether the next forward pass would be kept for its backward pass, if it is computed by itself."""
        ...

    def has_kept(self, passage: Passage) -> bool:
        """Whether its backward pass needs no inputs. In any thread; a moment later it may."""
        ...

    def forward(self, parameters: Vector, inputs: Tensor, passage: Passage | None = None) -> Tensor: ...
    def backward(
        self, parameters: Vector, inputs: Tensor | None, grad_outputs: Tensor, passage: Passage | None = None
    ) -> Backward: ...
    def backward_from_loss(self, parameters: Vector, inputs: Tensor, targets: Tensor) -> Backward: ...


def forward_pass(compute: Compute, parameters: Vector, inputs: Tensor, passage: Passage | None = None) -> Tensor:
    """Outputs that can travel (`that_travel`)."""
    return that_travel(compute.forward(parameters, inputs, passage))


def forward_passes(compute: Compute, parameters: Vector, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Of several microbatches at once: the outputs of each, whatever those of the others are."""
    together = compute.forward(parameters, inputs[0] if len(inputs) == 1 else torch.cat(list(inputs)))
    return [that_travel(outputs) for outputs in torch.split(together, [len(each) for each in inputs])]


def that_travel(outputs: Tensor) -> Tensor:
    """Those of one microbatch; zeros where one is not finite."""
    return outputs if _is_finite(outputs) else torch.zeros_like(outputs)


def backward_pass(
    compute: Compute,
    parameters: Vector,
    inputs: Tensor | None,
    other: Tensor,
    passage: Passage | None = None,
    *,
    last: bool,
) -> Backward:
    """`other`: the gradient of the outputs, or on the last stage the targets. `inputs`: None where those of `passage`
    are kept. What is for the trainer can travel: zeros and no loss where something is not finite.

    Raises Rejected, Forgotten.
    """
    if last:
        if inputs is None:
            raise Forgotten
        made = compute.backward_from_loss(parameters, inputs, other)
    else:
        made = compute.backward(parameters, inputs, other, passage)
    if made.finite:
        return made
    return replace(
        made, grad_inputs=None if made.grad_inputs is None else torch.zeros_like(made.grad_inputs), loss=None
    )


def given_to_trainer(
    compute: Compute, parameters: Vector, inputs: Tensor, other: Tensor | None, *, last: bool
) -> tuple[Tensor | None, float | None]:
    """The tensor and the loss that come of a forward pass, or with `other` of a backward pass. Raises Rejected."""
    if other is None:
        return forward_pass(compute, parameters, inputs), None
    made = backward_pass(compute, parameters, inputs, other, last=last)
    return made.grad_inputs, made.loss


class StageCompute:
    """Forward and backward through one stage, with the parameters that the caller names: epochs may overlap.

    Graphs of forward passes are kept as far as memory allows; where there is none, the backward pass computes the
    forward once more (Chen et al. 2016, "Training deep nets with sublinear memory cost"). So any peer of the stage can
    do either, and what a microbatch under way takes here is bounded.

    `parameters` are copied into the model when they are another vector than in the last call; whoever changes one in
    place changes nothing here. `inputs` fit the stage's `Tensors`.
    """

    def __init__(self, model: FlatModel, *, first: bool, last: bool, loss: Loss, kept_bytes: int = KEPT_BYTES) -> None:
        """The model is this object's own from now on. `kept_bytes`: of graphs, at most."""
        self._model = model
        self._first, self._last = first, last
        self._loss = loss
        self._loaded: Vector | None = None
        self._kept = KeptPasses(kept_bytes)

    @property
    def keeps(self) -> bool:
        return self._kept.has_room

    def has_kept(self, passage: Passage) -> bool:
        return passage in self._kept

    def load(self, parameters: Vector) -> None:
        """Takes on these parameters, as the other calls do by themselves."""
        if parameters is not self._loaded:
            self._kept.clear()  # their graphs read the parameters where they lie
            self._model.load(parameters)
            self._loaded = parameters

    def forward(self, parameters: Vector, inputs: Tensor, passage: Passage | None = None) -> Tensor:
        """The stage's outputs, which may be infinite or NaN. With `passage` its backward pass need not compute them
        again, if there is room."""
        self.load(parameters)
        if passage is None or not self.keeps:
            with torch.no_grad():
                return self._model(inputs)
        saved = SavedBytes(self._model.parameters)
        with saved.counted():
            inputs, outputs = self._with_graph(inputs)
        self._kept.keep(passage, ForwardPass(inputs, outputs, saved.total))
        return outputs.detach()

    def backward(
        self, parameters: Vector, inputs: Tensor | None, grad_outputs: Tensor, passage: Passage | None = None
    ) -> Backward:
        """The gradients from those of the outputs. `inputs`: None where those of `passage` are kept.

        Raises Rejected (wrong_shape) when the outputs have another shape, Forgotten.
        """
        self.load(parameters)
        kept = self._kept.take(passage) if passage is not None else None
        if kept is not None:
            inputs, outputs = kept.inputs, kept.outputs
        elif inputs is not None:
            inputs, outputs = self._with_graph(inputs)
        else:
            raise Forgotten
        if grad_outputs.shape != outputs.shape:
            shapes = f"{tuple(grad_outputs.shape)}, and the outputs {tuple(outputs.shape)}"
            raise Rejected(Reason.WRONG_SHAPE, f"the gradient of the outputs has the shape {shapes}")
        return self._gradients(inputs, outputs, grad_outputs)

    def backward_from_loss(self, parameters: Vector, inputs: Tensor, targets: Tensor) -> Backward:
        """On the last stage: the gradients of the mean loss. Raises Rejected (wrong_shape): targets do not fit."""
        assert self._last
        self.load(parameters)
        inputs, outputs = self._with_graph(inputs)
        try:
            loss = self._loss(outputs, targets)
        except ValueError as error:
            raise Rejected(Reason.WRONG_SHAPE, f"the targets of a microbatch: {error}") from error
        return self._gradients(inputs, loss, None)

    def _with_graph(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs that gather a gradient, and outputs."""
        inputs = inputs.detach()
        if not self._first:
            inputs.requires_grad_()
        return inputs, self._model(inputs)

    def _gradients(self, inputs: Tensor, result: Tensor, grad_result: Tensor | None) -> Backward:
        """`result`: the outputs, and the gradient of these; or the loss."""
        parameters = list(self._model.module.parameters())
        # Not `backward`, which adds to what has to be cleared before, and copied out afterwards.
        made = torch.autograd.grad(
            result, parameters if self._first else [*parameters, inputs], grad_result, materialize_grads=True
        )
        gradient = torch.cat([each.reshape(-1) for each in made[: len(parameters)]]).numpy()
        grad_inputs = None if self._first else made[-1]
        loss = result.item() if grad_result is None else None
        finite = (
            all_finite(gradient)
            and (grad_inputs is None or _is_finite(grad_inputs))
            and (loss is None or math.isfinite(loss))
        )
        return Backward(grad_inputs, gradient, loss, finite)


def _is_finite(tensor: Tensor) -> bool:
    """torch's own takes twenty times as long."""
    return all_finite(tensor.detach().contiguous().view(-1).numpy())
