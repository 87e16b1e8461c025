"""What a peer of a stage may do to its trainers: answer wrongly, with rubbish or not at all, or not count."""

from typing import Any

from torch import Tensor

from dht.interfaces import Frame, RequestHandler, Stream, Unreachable
from dht.wrapped_transport import WrappedStream
from peer.misbehaviour.lying_transport import LyingTransport
from peer.misbehaviour.owners import HELD_SECONDS
from peer.swarm.compute import Backward, Compute
from peer.swarm.factory import real_compute
from peer.swarm.kept_passes import Passage
from peer.swarm.server import COUNT_KIND, WORK_KIND
from protocols.encoding import digest
from protocols.manifest import Manifest
from protocols.signed import Signer, open_signed
from protocols.swarm.messages import Answer, Count
from protocols.vectors import Vector

NAN = b"\x00\x00\xc0\x7f"
"""As float32; as two halves, the second is one."""

Given = dict[str, Any]
"""What `assemble` is given."""


# -- wrong answers ----------------------------------------------------------------------------------------------------


class WrongActivations(Compute):
    """Forward passes give the outputs turned round; backward passes are as they should be."""

    def __init__(self, honest: Compute) -> None:
        self._honest = honest

    @property
    def keeps(self) -> bool:
        return self._honest.keeps

    def has_kept(self, passage: Passage) -> bool:
        return self._honest.has_kept(passage)

    def forward(self, parameters: Vector, inputs: Tensor, passage: Passage | None = None) -> Tensor:
        return -self._honest.forward(parameters, inputs, passage)

    def backward(
        self, parameters: Vector, inputs: Tensor | None, grad_outputs: Tensor, passage: Passage | None = None
    ) -> Backward:
        return self._honest.backward(parameters, inputs, grad_outputs, passage)

    def backward_from_loss(self, parameters: Vector, inputs: Tensor, targets: Tensor) -> Backward:
        return self._honest.backward_from_loss(parameters, inputs, targets)


class WrongGradients(WrongActivations):
    """Backward passes give the gradient of the inputs turned round; forward passes are as they should be.

    What it adds to its own sum is right.
    """

    def forward(self, parameters: Vector, inputs: Tensor, passage: Passage | None = None) -> Tensor:
        return self._honest.forward(parameters, inputs, passage)

    def backward(
        self, parameters: Vector, inputs: Tensor | None, grad_outputs: Tensor, passage: Passage | None = None
    ) -> Backward:
        return _turned_round(super().backward(parameters, inputs, grad_outputs, passage))

    def backward_from_loss(self, parameters: Vector, inputs: Tensor, targets: Tensor) -> Backward:
        return _turned_round(super().backward_from_loss(parameters, inputs, targets))


def _turned_round(made: Backward) -> Backward:
    return Backward(None if made.grad_inputs is None else -made.grad_inputs, made.gradient, made.loss, made.finite)


def wrong_activations(given: Given) -> Given:
    return _with_compute(given, WrongActivations)


def wrong_gradients(given: Given) -> Given:
    return _with_compute(given, WrongGradients)


def _with_compute(given: Given, lying: type[WrongActivations]) -> Given:
    honest = given.get("compute", real_compute)

    def compute(manifest: Manifest, stage: int) -> Compute:
        return lying(honest(manifest, stage))

    return given | {"compute": compute}


# -- rubbish, and nothing ---------------------------------------------------------------------------------------------


class NanAnswers(LyingTransport):
    """Its tensors have a NaN in them, and are signed as they are."""

    def served(self, kind: str, stream: Stream) -> Stream:
        return _WithNan(stream, self.signer) if kind == WORK_KIND else stream


class _WithNan(WrappedStream):
    """Of tensors that fit into one frame."""

    def __init__(self, stream: Stream, signer: Signer) -> None:
        super().__init__(stream)
        self._signer = signer

    async def send(self, frame: Frame) -> None:
        if not memoryview(frame.payload):
            await super().send(frame)
            return
        statement = open_signed(frame.header, Answer, run=self._signer.run)
        payload = NAN + bytes(frame.payload)[len(NAN) :]
        body = statement.body.model_copy(update={"payload": digest(payload)})
        await super().send(Frame(self._signer.sign(body, statement.epoch).wire, payload))


class WithheldAnswers(LyingTransport):
    """Takes works, and never answers."""

    def served(self, kind: str, stream: Stream) -> Stream:
        return _Silent(stream, self) if kind == WORK_KIND else stream


class _Silent(WrappedStream):
    def __init__(self, stream: Stream, transport: LyingTransport) -> None:
        super().__init__(stream)
        self._clock = transport.clock

    async def send(self, frame: Frame) -> None:
        await self._clock.sleep(HELD_SECONDS)
        raise Unreachable("withheld on purpose")


def nan_answers(given: Given) -> Given:
    return given | {"transport": NanAnswers(given["transport"], given["signer"])}


def withheld_answers(given: Given) -> Given:
    return given | {"transport": WithheldAnswers(given["transport"], given["signer"])}


# -- counting ---------------------------------------------------------------------------------------------------------


class FalseCounts(LyingTransport):
    """Says to have counted what it is asked to count, and does not."""

    async def serve_requests(self, kind: str, handler: RequestHandler, *limits: int) -> None:
        async def pretend(_peer: Any, wire: bytes) -> bytes:
            return open_signed(wire, Count, run=self.signer.run).body.microbatches

        await super().serve_requests(kind, pretend if kind == COUNT_KIND else handler, *limits)


def false_counts(given: Given) -> Given:
    return given | {"transport": FalseCounts(given["transport"], given["signer"])}
