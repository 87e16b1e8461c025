"""What trainers, the peers of stages and the keeper of the board say to each other.

All but `Answer` and `Count` are known by the connection they come on; those two are signed, for they are evidence.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from protocols.activations import TensorHeader
from protocols.encoding import digest
from protocols.manifest import MAX_MICROBATCHES
from protocols.message import Count as Number
from protocols.message import Digest, Item, Many, Message
from protocols.round.messages import Covered

MAX_STAGES = 64
OPEN_EPOCHS = 2
"""A stage takes microbatches of the epoch that it has to step, and of the next where updates are delayed."""

StageNumber = Annotated[int, Field(ge=0, lt=MAX_STAGES)]
Microbatch = Annotated[int, Field(ge=0, lt=MAX_MICROBATCHES)]
WorkTask = Literal["forward", "backward", "evaluate"]
Outcome = Literal["done", "busy", "early", "late", "moved", "forgotten"]


class Work(Message):
    """What a stage is to do with a microbatch.

    forward: takes the inputs. backward: the inputs, and the gradient of the outputs, on the last stage the targets.
    evaluate: the inputs of held-out samples, for the state of that epoch; the number of the microbatch means nothing.
    """

    kind: ClassVar[str] = "work"
    limit_bytes: ClassVar[int] = 2048
    task: WorkTask
    epoch: Number
    stage: StageNumber
    microbatch: Microbatch
    inputs: TensorHeader
    other: TensorHeader | None

    @property
    def tensors(self) -> tuple[TensorHeader, ...]:
        return (self.inputs,) if self.other is None else (self.inputs, self.other)


class Delivery(Message):
    """From a trainer: a work, whose tensors follow, the inputs first."""

    kind: ClassVar[str] = "delivery"
    limit_bytes: ClassVar[int] = Work.limit_bytes + 256
    work: Work
    kept: Digest | None = None
    """Of a backward pass: its inputs, by their bytes' digest, do not follow: the peer has them of the forward pass."""

    @property
    def tensors(self) -> tuple[TensorHeader, ...]:
        """Those that follow."""
        return self.work.tensors if self.kept is None else self.work.tensors[1:]


class Answer(Message):
    """To a trainer, before the tensor.

    done: forward, evaluate: the outputs follow; backward: the gradient of the inputs, but on the first stage, and the
    stage's own waits here to be counted. busy: not now. early: this peer has not come to that epoch. late: it has left
    it behind. moved: it serves another stage. forgotten: the inputs must be sent once more.
    """

    kind: ClassVar[str] = "answer"
    limit_bytes: ClassVar[int] = 2048
    outcome: Outcome
    work: Digest
    """`work_digest` of what was asked; where it is done, with the digests of its tensors."""
    tensor: TensorHeader | None = None
    payload: Digest | None = None
    """Of the tensor's bytes."""
    loss: Annotated[float, Field(ge=-1e30, le=1e30)] | None = None
    kept: bool = False
    """Of a forward pass: its backward pass does without the inputs here, and without computing it again."""
    queue: Number = 0
    """Microbatches that wait here."""


class Count(Message):
    """From the trainer that was given the gradient of the inputs: count the stage's own gradients of these."""

    kind: ClassVar[str] = "count"
    limit_bytes: ClassVar[int] = 1024
    stage: StageNumber
    microbatches: Covered


class OpenEpoch(Item):
    epoch: Number
    covered: Covered


class Coverage(Message):
    """From a peer of a stage: what it has counted."""

    kind: ClassVar[str] = "coverage"
    limit_bytes: ClassVar[int] = 4096
    stage: StageNumber
    epoch: Number
    """That its stage has to step."""
    counted: Annotated[Many[OpenEpoch], Field(max_length=OPEN_EPOCHS)]
    known: Covered | None = None
    """What of that epoch the whole stage has counted, by the word of whoever leads its round; None: it is not known."""


class Kept(Message):
    """From a peer that has a snapshot of a stage, its own or a foreign one; the envelope says of which epoch."""

    kind: ClassVar[str] = "kept"
    limit_bytes: ClassVar[int] = 1024
    stage: StageNumber
    state: Digest


class Previous(Message):
    """From a peer of a stage: the parameters before the last step, by their content address; the envelope says of which
    epoch."""

    kind: ClassVar[str] = "previous"
    limit_bytes: ClassVar[int] = 1024
    stage: StageNumber
    parameters: Digest


class Claim(Message):
    """From a trainer to the keeper of the board: this is what I am at work on, and I want so many more."""

    kind: ClassVar[str] = "claim"
    limit_bytes: ClassVar[int] = 4096
    held: Annotated[Many[OpenEpoch], Field(max_length=OPEN_EPOCHS + 1)]
    wanted: Annotated[int, Field(ge=0, le=MAX_MICROBATCHES)]


class Lacking(Item):
    epoch: Number
    missing: Annotated[Many[Covered], Field(max_length=MAX_STAGES)]
    """By stage: the microbatches that nobody there has counted who lives."""


class Grant(Message):
    """To a trainer: these are yours, and this is what the open epochs lack."""

    kind: ClassVar[str] = "grant"
    limit_bytes: ClassVar[int] = 128 * 1024
    epoch: Number
    granted: Covered
    standings: Annotated[Many[Lacking], Field(max_length=OPEN_EPOCHS)]


def work_digest(work: Work, *payload_digests: bytes) -> bytes:
    """Names what a peer was asked, its tensors with it."""
    return digest(b"peer/1/work\x00", work.to_bytes(), *payload_digests)
