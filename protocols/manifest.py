"""The manifest: all that the members of a run must agree on, and the run id that authenticates it.

run id = `<name>-<base32(blake3(encoding))[:26]>` (130 bits), so any peer can serve a manifest and nobody can alter it.
A manifest is data alone: it names a registered model and data set, and carries no code and no paths.
"""

import base64
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from protocols.encoding import EncodingError, decode, digest, encode
from protocols.message import Digest, Item, Many, Peer, first_error
from protocols.rejection import Reason, Rejected

MAX_MANIFEST_BYTES = 256 * 1024
MAX_FILE_NAME_BYTES = 200
"""File systems take 255; a writer puts something around it."""
MAX_MICROBATCHES = 4096
"""Of an epoch: who has counted which is said with a bit for each."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]
RegistryName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
OptionValue = (
    bool | Annotated[int, Field(ge=-(2**63), lt=2**63)] | float | Annotated[str, StringConstraints(max_length=256)]
)
Options = Annotated[dict[RegistryName, OptionValue], Field(max_length=64)]
Positive = Annotated[int, Field(ge=1, le=2**40)]
Rate = Annotated[float, Field(gt=0, le=1000)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


def _file_name(text: str) -> str:
    if not text or not text.isprintable() or "/" in text or "\\" in text:
        raise ValueError("is no printable file name")
    if text.startswith(".") or len(text.encode()) > MAX_FILE_NAME_BYTES:
        raise ValueError(f"begins with a dot or is longer than {MAX_FILE_NAME_BYTES} bytes")
    return text


FileName = Annotated[str, AfterValidator(_file_name)]
"""Of a file that a member may make in its own directory: nothing that leads elsewhere, hides or steers a terminal."""


class Model(Item):
    """A registered architecture and its hyper-parameters."""

    architecture: RegistryName
    options: Options = Field(default={})


class Shard(Item):
    """A piece of the data, named by what it holds; `digest` is its content address (`protocols.blocks`)."""

    name: FileName
    size_bytes: Annotated[int, Field(ge=0, le=2**48)]
    digest: Digest


class Data(Item):
    """A registered data set, with shards when it reads files."""

    dataset: RegistryName
    options: Options = Field(default={})
    shards: Annotated[Many[Shard], Field(max_length=1024)] = ()
    private: bool = False
    """Whether members train on data that others do not have, so that nobody can check what they send."""


class Sgd(Item):
    """Stochastic gradient descent with (Nesterov) momentum."""

    algorithm: Literal["sgd"] = "sgd"
    learning_rate: Rate
    momentum: Fraction = 0.0
    nesterov: bool = False
    weight_decay: Fraction = 0.0
    warmup_epochs: Annotated[int, Field(ge=0, le=2**40)] = 0
    final_learning_rate: Annotated[float, Field(ge=0, le=1000)] | None = None
    """Where a linear decay over the run's epochs ends; None keeps the rate constant."""


class AdamW(Item):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    algorithm: Literal["adamw"] = "adamw"
    learning_rate: Rate
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-8
    weight_decay: Fraction = 0.0
    warmup_epochs: Annotated[int, Field(ge=0, le=2**40)] = 0
    final_learning_rate: Annotated[float, Field(ge=0, le=1000)] | None = None


Optimizer = Annotated[Sgd | AdamW, Field(discriminator="algorithm")]


class DataParallel(Item):
    """The swarm accumulates gradients over `target_batch` samples, then takes one step (DeDLOC, Diskin et al. 2021)."""

    mode: Literal["data_parallel"] = "data_parallel"
    batch_size: Positive = 32
    """Samples of one microbatch on one peer."""
    target_batch: Positive
    optimizer: Optimizer

    @property
    def outer(self) -> Sgd | AdamW:
        """The optimizer that is part of the shared state."""
        return self.optimizer

    @property
    def most_samples(self) -> int:
        """Behind one peer's update: whole microbatches, until it has what the whole swarm needs."""
        return -(-self.target_batch // self.batch_size) * self.batch_size


class LocalSgd(Item):
    """Each peer takes `inner_steps` local steps; pseudo-gradients are averaged (DiLoCo, Douillard et al. 2023)."""

    mode: Literal["local_sgd"] = "local_sgd"
    batch_size: Positive = 32
    inner_steps: Positive
    inner: Optimizer
    outer: Sgd = Sgd(learning_rate=0.7, momentum=0.9, nesterov=True)

    @property
    def most_samples(self) -> int:
        """Behind one peer's update."""
        return self.inner_steps * self.batch_size


class Pipeline(Item):
    """The model is cut into stages, and each peer holds one (SWARM, Ryabinin et al. 2023).

    An epoch is `target_batch` samples in microbatches, each of which counts once in the gradient of every stage.
    """

    mode: Literal["swarm"] = "swarm"
    stages: Annotated[int, Field(ge=2, le=64)]
    """How many; a list says how many of the model's layers each holds."""
    layers: Annotated[Many[Positive], Field(max_length=64)] = ()
    """That list; empty: each holds as many as the others, or one more."""
    batch_size: Positive = 8
    """Samples of a microbatch."""
    target_batch: Positive
    optimizer: Optimizer
    codec: Literal["none", "float16", "int8"] = "int8"
    """How activations and their gradients travel."""
    delayed: Annotated[int, Field(ge=0, le=1)] = 0
    """1: an epoch's gradients are applied while the next one is computed."""
    spot_checks: Annotated[float, Field(ge=0, le=1)] = 0.0
    """So much of a trainer's work it has done twice, by two peers of a stage, and compares."""

    @property
    def outer(self) -> Sgd | AdamW:
        """The optimizer that is part of the shared state."""
        return self.optimizer

    @property
    def microbatches(self) -> int:
        """Of an epoch."""
        return self.target_batch // self.batch_size

    @property
    def most_samples(self) -> int:
        """Behind one peer's update."""
        return self.target_batch

    @model_validator(mode="before")
    @classmethod
    def _list_of_stages(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and isinstance(fields.get("stages"), list | tuple) and "layers" not in fields:
            return fields | {"stages": len(fields["stages"]), "layers": fields["stages"]}
        return fields

    @model_validator(mode="after")
    def _names_the_layers_of_all_stages(self) -> Self:
        if self.layers and len(self.layers) != self.stages:
            raise ValueError(f"layers has {len(self.layers)} entries for {self.stages} stages")
        return self

    @model_validator(mode="after")
    def _has_whole_microbatches(self) -> Self:
        if self.target_batch % self.batch_size:
            raise ValueError(f"target_batch {self.target_batch} is no multiple of batch_size {self.batch_size}")
        if self.microbatches > MAX_MICROBATCHES:
            raise ValueError(f"an epoch has {MAX_MICROBATCHES} microbatches at most, not {self.microbatches}")
        return self


class Committee(Item):
    """In each round some members train and some aggregate, sampled anew (`protocols.gossip.committee`)."""

    trainers: Annotated[int, Field(ge=1, le=64)]
    aggregators: Annotated[int, Field(ge=1, le=16)] = 2
    """One would do, were it sure to stay."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.75
    """So much of the trainers' models is enough to go on."""


class Gossip(Item):
    """Each peer trains at its own pace and mixes its model with neighbours' (`protocols.gossip`).

    An epoch is `steps` steps of one peer, after which it mixes with its neighbours of that epoch.
    """

    mode: Literal["gossip"] = "gossip"
    topology: Literal["random", "exponential", "ring", "regular"] = "random"
    """Who mixes with whom: random pairs, the one-peer exponential graph, a ring, or a random graph of that `degree`."""
    degree: Annotated[int, Field(ge=1, le=32)] = 1
    """Neighbours of a peer in an epoch, with `regular`."""
    batch_size: Positive = 32
    """Samples of a step."""
    steps: Positive = 1
    """Between two exchanges."""
    optimizer: Optimizer
    """Of each peer's steps; its momentum and moments stay with the peer."""
    mixing: Literal["pairwise", "clipped", "rule"] = "pairwise"
    """With each neighbour to the mean of both; or of all neighbours' models, of which `averaging.byzantine` may be
    anything, by clipped gossip or by the rule of `averaging`."""
    committee: Committee | None = None
    """Instead of neighbours: each epoch is a round of a sampled committee."""
    accelerated: bool = False
    """Whether a companion model brings the models of a ring together sooner (`protocols.gossip.momentum`)."""
    corrects_variance: bool = False
    """Whether a mean of models keeps the variance of their layers (`protocols.gossip.variance`)."""
    merges_at_end: bool = True
    """Whether all end with the mean of all models (`peer.gossip.merge`)."""

    @property
    def outer(self) -> Sgd | AdamW:
        """The optimizer whose vectors are part of a state."""
        return self.optimizer

    @property
    def most_samples(self) -> int:
        """That a peer adds in an epoch."""
        return self.steps * self.batch_size

    @property
    def neighbours(self) -> int:
        """Of a peer in an epoch, at most."""
        return {"ring": 2, "regular": self.degree}.get(self.topology, 1)

    @model_validator(mode="after")
    def _has_options_only_where_they_count(self) -> Self:
        if self.degree != 1 and self.topology != "regular":
            raise ValueError(f"degree is for topology = 'regular'; {self.topology} has {self.neighbours}")
        if self.committee is not None and self.mixing != "pairwise":
            raise ValueError("a committee's models become their mean; it has no other mixing")
        if self.accelerated and (self.topology != "ring" or self.mixing != "pairwise" or self.committee is not None):
            raise ValueError("accelerated is for topology = 'ring' with mixing = 'pairwise'")
        return self


Training = Annotated[DataParallel | LocalSgd | Pipeline | Gossip, Field(discriminator="mode")]


def _with_spaces(text: object) -> object:
    return " | ".join(name.strip() for name in text.split("|")) if isinstance(text, str) else text


RuleName = Annotated[
    str,
    BeforeValidator(_with_spaces),
    StringConstraints(pattern=r"^[a-z][a-z_]{0,31}( \| [a-z][a-z_]{0,31}){0,3}$"),
]


class Averaging(Item):
    """How a round reduces the updates."""

    rule: RuleName = "mean"
    """Of `protocols.rules`; with pre-aggregators before it: nnm | trimmed_mean."""
    options: Options = Field(default={})
    """Of the rule."""
    byzantine: Annotated[int, Field(ge=0, le=31)] = 0
    """So many members of a group may send anything at all (f); a robust rule withstands them."""
    codec: Literal["none", "float16", "int8"] = "none"
    group_limit: Annotated[int, Field(ge=1, le=64)] = 64
    quorum: Annotated[int, Field(ge=1, le=64)] = 1
    """With fewer members no round begins; those who are there wait for others."""
    cells: Annotated[int, Field(ge=0, le=64)] = 0
    """A round has two levels: so many cells, about √n of n members, then one member of each cell
    (`protocols.round.cells`); `byzantine` and `quorum` are of each cell, and of the cells. 0: one level."""

    @model_validator(mode="after")
    def _has_enough_cells(self) -> Self:
        if self.cells == 1:
            raise ValueError("one cell is no level of its own; cells = 0 has one level")
        if self.cells and self.cells < self.quorum:
            raise ValueError(f"{self.cells} cells are fewer than the quorum of {self.quorum}, which holds of them, too")
        return self

    @model_validator(mode="after")
    def _groups_are_large_enough(self) -> Self:
        if self.group_limit < self.quorum:
            raise ValueError(
                f"a group of {self.group_limit} at most (group_limit) never has the {self.quorum} "
                "that have to be there (quorum)"
            )
        return self

    @model_validator(mode="after")
    def _most_are_honest(self) -> Self:
        if self.quorum <= 2 * self.byzantine:
            raise ValueError(
                f"{self.byzantine} members may send anything (byzantine), so at least {2 * self.byzantine + 1} "
                f"have to be there (quorum), not {self.quorum}"
            )
        return self


class Evaluation(Item):
    """When each peer evaluates the shared model on the held-out data."""

    every_epochs: Positive = 10
    samples: Positive = 4096
    """At most this many."""

    def is_due(self, before: int, epoch: int) -> bool:
        """Whether a member that comes from epoch `before` to `epoch` evaluates."""
        return epoch // self.every_epochs > before // self.every_epochs


class Admission(Item):
    """Who may take part."""

    policy: Literal["open", "allowlist", "token"] = "open"
    peers: Annotated[Many[Peer], Field(max_length=1024)] = ()
    """The list, beside the organiser; with `token` the organiser admits each by a signed token."""
    probation_epochs: Annotated[int, Field(ge=0, le=2**20)] = 0
    """In so many rounds a newcomer takes part before it is one no more (`protocols.probation`); 0: there are none."""
    probation_share: Fraction = 0.25
    """So much of a group may be newcomers, by their number; one may be in any case."""

    @model_validator(mode="after")
    def _has_a_list_if_it_needs_one(self) -> Self:
        if (self.policy == "allowlist") != bool(self.peers):
            raise ValueError("an allowlist names peers, and nothing else does")
        return self


class Verification(Item):
    """Members check each other's work (BTARD, Gorbunov et al. 2022), and whoever is found out is banned."""

    validators: Annotated[int, Field(ge=0, le=32)] = 0
    """So many members, drawn anew in each epoch, each check one sender and one owner; 0: nobody is checked."""
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """How far what is recomputed may be from what was sent, by the length of the difference to that of the vector:
    more than floating-point arithmetic differs between machines."""


class Manifest(Item):
    version: Literal[1] = 1
    name: Name
    organiser: Peer | None = None
    """Whose directives count; None in a built-in run, which has no organiser."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    model: Model
    data: Data
    training: Training
    epochs: Annotated[int, Field(ge=1, le=2**31)]
    averaging: Averaging = Averaging()
    evaluation: Evaluation = Evaluation()
    admission: Admission = Admission()
    verification: Verification = Verification()
    test: bool = False
    """Whether members may attack it on purpose (`peer join --misbehave`), to see that it withstands them."""

    @model_validator(mode="after")
    def _has_an_organiser_who_admits(self) -> Self:
        if self.admission.policy == "token" and self.organiser is None:
            raise ValueError("tokens are signed by an organiser, and this run has none")
        return self

    @model_validator(mode="after")
    def _mixes_by_a_rule_only_where_it_has_one(self) -> Self:
        training, averaging = self.training, self.averaging
        if not isinstance(training, Gossip):
            return self
        if (training.mixing == "rule") != (averaging.rule != "mean"):
            raise ValueError("a rule other than the mean (averaging.rule) goes with training.mixing = 'rule'")
        if training.mixing == "pairwise" and averaging.byzantine:
            raise ValueError("pairwise mixing withstands nobody (averaging.byzantine); see training.mixing")
        if training.neighbours < 2 * averaging.byzantine:
            raise ValueError(
                f"{averaging.byzantine} neighbours may send anything (averaging.byzantine), so a peer needs at least "
                f"{2 * averaging.byzantine} of them (training.topology, degree), not {training.neighbours}"
            )
        return self

    @model_validator(mode="after")
    def _has_cells_only_where_they_are_served(self) -> Self:
        if not self.averaging.cells:
            return self
        if isinstance(self.training, Gossip | Pipeline):
            raise ValueError(f"averaging.cells is not for mode = {self.training.mode!r}")
        if self.verification.validators:
            raise ValueError("members of different cells cannot check each other: validators needs averaging.cells = 0")
        if self.admission.probation_epochs:
            raise ValueError("nobody sees all cells: probation_epochs needs averaging.cells = 0")
        return self

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.to_bytes()) > MAX_MANIFEST_BYTES:
            raise ValueError(f"the manifest is longer than {MAX_MANIFEST_BYTES} bytes")
        return self

    @property
    def checks_senders(self) -> bool:
        """Whether members do each other's work once more; not where the data for it is not everybody's."""
        return self.verification.validators > 0 and not self.data.private

    def quorum_without(self, banned: int) -> int:
        """So many have to be there when so many are banned.

        As many fewer are left of the `byzantine`; else those who have banned the liars could not go on without them.
        Among cells or stages it stays as it is: nobody can tell of which one a liar would have been.
        """
        averaging = self.averaging
        if averaging.cells or not isinstance(self.training, DataParallel | LocalSgd):
            return averaging.quorum
        return averaging.quorum - min(banned, averaging.byzantine)

    def to_bytes(self) -> bytes:
        """The canonical encoding."""
        return encode(self.model_dump())

    @cached_property
    def run_id(self) -> str:
        text = base64.b32encode(digest(self.to_bytes())).decode().lower()
        return f"{self.name}-{text[:26]}"

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        copy = super().model_copy(update=update, deep=deep)
        copy.__dict__.pop("run_id", None)
        return copy

    @classmethod
    def from_bytes(cls, data: bytes, run_id: str) -> "Manifest":
        """The manifest that `run_id` names. Raises Rejected (oversized, malformed, wrong_digest)."""
        if len(data) > MAX_MANIFEST_BYTES:
            raise Rejected(Reason.OVERSIZED, f"a manifest of {len(data)} bytes")
        try:
            manifest = cls.model_validate(decode(data, MAX_MANIFEST_BYTES))
        except EncodingError as error:
            raise Rejected(Reason.MALFORMED, f"manifest: {error}") from error
        except ValidationError as error:
            raise Rejected(Reason.MALFORMED, f"manifest: {first_error(error)}") from error
        if manifest.run_id != run_id or manifest.to_bytes() != data:
            raise Rejected(Reason.WRONG_DIGEST, f"this is not the manifest of {run_id}")
        return manifest
