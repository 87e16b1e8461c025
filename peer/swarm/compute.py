"""What a peer computes on the stage that it holds. Blocking, for a worker thread; one call at a time."""

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from peer.data.dataset import Loss
from peer.models.flat import FlatModel
from protocols.rejection import Reason, Rejected
from protocols.vectors import Vector, all_finite, read_only


@dataclass(frozen=True, slots=True)
class Backward:
    """What a backward pass gives."""

    grad_inputs: Tensor | None
    """Of the shape of the inputs; None on the first stage, whose inputs are data."""
    gradient: Vector
    """Of all parameters, flat; a read-only view that holds until the next call."""
    loss: float | None
    """On the last stage."""
    finite: bool
    """Whether all of these are."""


class Compute(Protocol):
    """`StageCompute`, or what stands for it where computing is emulated."""

    def forward(self, parameters: Vector, inputs: Tensor) -> Tensor: ...
    def backward(self, parameters: Vector, inputs: Tensor, grad_outputs: Tensor) -> Backward: ...
    def backward_from_loss(self, parameters: Vector, inputs: Tensor, targets: Tensor) -> Backward: ...


def forward_pass(compute: Compute, parameters: Vector, inputs: Tensor) -> Tensor:
    """Outputs that can travel: zeros where one is not finite."""
    outputs = compute.forward(parameters, inputs)
    return outputs if torch.isfinite(outputs).all() else torch.zeros_like(outputs)


def backward_pass(compute: Compute, parameters: Vector, inputs: Tensor, other: Tensor, *, last: bool) -> Backward:
    """`other`: the gradient of the outputs, or on the last stage the targets. What is for the trainer can travel: zeros
    and no loss where something is not finite. Raises Rejected."""
    made = (compute.backward_from_loss if last else compute.backward)(parameters, inputs, other)
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

    Nothing is kept between the two passes: the backward pass computes the forward once more (Chen et al. 2016,
    "Training deep nets with sublinear memory cost"). So any peer of the stage can do either, and a microbatch under way
    takes no memory here.

    `parameters` are copied into the model when they are another vector than in the last call; whoever changes one in
    place changes nothing here. `inputs` fit the stage's `Tensors`.
    """

    def __init__(self, model: FlatModel, *, first: bool, last: bool, loss: Loss) -> None:
        """The model is this object's own from now on."""
        self._model = model
        self._first, self._last = first, last
        self._loss = loss
        self._loaded: Vector | None = None

    def load(self, parameters: Vector) -> None:
        """Takes on these parameters, as the other calls do by themselves."""
        if parameters is not self._loaded:
            self._model.load(parameters)
            self._loaded = parameters

    def forward(self, parameters: Vector, inputs: Tensor) -> Tensor:
        """The stage's outputs, which may be infinite or NaN."""
        self.load(parameters)
        with torch.no_grad():
            return self._model(inputs)

    def backward(self, parameters: Vector, inputs: Tensor, grad_outputs: Tensor) -> Backward:
        """The gradients from those of the outputs. Raises Rejected (wrong_shape) when these have another shape."""
        inputs, outputs = self._recompute(parameters, inputs)
        if grad_outputs.shape != outputs.shape:
            shapes = f"{tuple(grad_outputs.shape)}, and the outputs {tuple(outputs.shape)}"
            raise Rejected(Reason.WRONG_SHAPE, f"the gradient of the outputs has the shape {shapes}")
        torch.autograd.backward(outputs, grad_outputs)
        return self._gradients(inputs, None)

    def backward_from_loss(self, parameters: Vector, inputs: Tensor, targets: Tensor) -> Backward:
        """On the last stage: the gradients of the mean loss. Raises Rejected (wrong_shape): targets do not fit."""
        assert self._last
        inputs, outputs = self._recompute(parameters, inputs)
        try:
            loss = self._loss(outputs, targets)
        except ValueError as error:
            raise Rejected(Reason.WRONG_SHAPE, f"the targets of a microbatch: {error}") from error
        torch.autograd.backward(loss)
        return self._gradients(inputs, loss.item())

    def _recompute(self, parameters: Vector, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs that gather a gradient, and outputs."""
        self.load(parameters)
        self._model.clear_gradient()
        inputs = inputs.detach()
        if not self._first:
            inputs.requires_grad_()
        return inputs, self._model(inputs)

    def _gradients(self, inputs: Tensor, loss: float | None) -> Backward:
        gradient = read_only(self._model.gradient.numpy())
        finite = (
            all_finite(gradient)
            and (inputs.grad is None or bool(torch.isfinite(inputs.grad).all()))
            and (loss is None or math.isfinite(loss))
        )
        return Backward(inputs.grad, gradient, loss, finite)
