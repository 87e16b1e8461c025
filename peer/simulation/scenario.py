"""Scenarios: what is simulated, in TOML. A recipe's tables say what is trained, further ones by whom, in what world."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from peer.errors import UsageError
from peer.recipe_errors import advice, explain
from peer.recipes import Recipe, read_file, to_manifest
from peer.simulation.sessions import Session
from peer.simulation.table import (
    Fraction,
    Jitter,
    Moment,
    Name,
    NotNegative,
    Offset,
    Positive,
    Probability,
    Seconds,
    Table,
)
from protocols.averaging import check_averaging
from protocols.manifest import Data, Gossip, LocalSgd, Manifest, Model, Pipeline, Sgd
from protocols.message import Many
from protocols.roles import Role

Count = Annotated[int, Field(ge=1, le=100_000)]
Names = Annotated[Many[Name], Field(max_length=64)]


class QuadraticProblem(Table):
    """`peer.simulation.problems.Quadratic`."""

    kind: Literal["quadratic"] = "quadratic"
    parameters: Annotated[int, Field(ge=1, le=2**24)] = 2048


class LogisticProblem(Table):
    """`peer.simulation.problems.Logistic`."""

    kind: Literal["logistic"] = "logistic"
    parameters: Annotated[int, Field(ge=1, le=1024)] = 64
    samples: Annotated[int, Field(ge=1, le=2**20)] = 4096
    penalty: Annotated[float, Field(gt=0, le=1)] = 1e-3


Problem = Annotated[QuadraticProblem | LogisticProblem, Field(discriminator="kind")]


class Group(Table):
    """Peers of one kind."""

    name: Name
    count: Count
    region: Name = "here"
    upload: Positive = Field(default=100.0, validate_default=True)
    """Mbit/s."""
    download: Positive = Field(default=100.0, validate_default=True)
    latency: NotNegative = Field(default=0.02, validate_default=True)
    """Seconds to the middle of the network, one way."""
    jitter: NotNegative = Field(default=0.0, validate_default=True)
    """At most so much more, of each message."""
    loss: Probability = Field(default=0.0, validate_default=True)
    """Probability that a message is lost so often that its stream breaks."""
    client_mode: bool = False
    """Behind a NAT: it dials, others do not."""
    role: Role = "trainer"
    samples_per_second: Positive = Field(default=200.0, validate_default=True)
    compute_jitter: Jitter = Field(default=0.0, validate_default=True)
    """Standard deviation of the logarithm of a microbatch's time."""
    clock_offset: Offset = Field(default=0.0, validate_default=True)
    """Seconds by which its wall clock is ahead."""
    joins: NotNegative = Field(default=0.0, validate_default=True)
    """When it comes first."""
    session: Session | None = None
    """None: it stays."""
    misbehave: str | None = None
    """One of `peer.misbehaviour`."""


class Partition(Table):
    """Peers of different sides do not reach each other; who is on none forms one more."""

    at: Moment
    seconds: Seconds
    sides: Annotated[Many[Names], Field(max_length=64)] = ()
    """Each a list of groups and regions."""
    share: Fraction | None = None
    """Instead: so much of all peers, drawn at random, is cut off from the others."""

    @model_validator(mode="after")
    def _says_who(self) -> "Partition":
        if bool(self.sides) == (self.share is not None):
            raise ValueError("has either sides or a share")
        return self


class Crash(Table):
    """Some peers are killed at once, as by kill -9."""

    at: Moment
    peers: Names = ()
    """Of these groups and regions; of all where it names none."""
    count: Count | None = None
    share: Fraction | None = None
    back_after: Seconds | None = None
    """They start again from their disks then; None: never."""

    @model_validator(mode="after")
    def _says_how_many(self) -> "Crash":
        if (self.count is None) == (self.share is None):
            raise ValueError("has either a count or a share")
        return self


class Check(Table):
    """What must hold, and how fast again after a fault (`peer.simulation.invariants`)."""

    agree_within: Moment = 60.0
    """Seconds in which a peer that differs from most must have taken their history; 0: nobody may ever differ."""
    progress_within: Seconds = 60.0
    """Seconds in which each honest peer that lives must come to another epoch, once faults have stopped."""
    consensus: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Without rounds: what may be left of the largest consensus distance when training ends; 1: all of it."""
    finishes: bool = True
    """Whether the run must come to its last epoch."""


class World(Table):
    """All of a scenario that is no recipe."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of everything that is drawn; `--seed` goes before it."""
    seconds: Seconds
    """The simulation is over then, if not before."""
    problem: Problem | None = None
    """Instead of `model` and `data`."""
    peers: Annotated[Many[Group], Field(min_length=1, max_length=64)]
    latency: dict[Name, dict[Name, Moment]] = Field(default={})
    """Between regions, and within them: seconds one way, beside those of the peers."""
    partitions: Annotated[Many[Partition], Field(max_length=256)] = ()
    crashes: Annotated[Many[Crash], Field(max_length=256)] = ()
    snapshot_seconds: Moment = 0.1
    """That a state takes to the disk."""
    check: Check = Check()

    @property
    def count(self) -> int:
        return sum(group.count for group in self.peers)

    def scaled(self, count: int) -> "World":
        """With `count` peers, in groups as large beside each other as they were, each of one peer at least."""
        exact = [group.count * count / self.count for group in self.peers]
        counts = [max(1, int(size)) for size in exact]
        by_remainder = sorted(range(len(exact)), key=lambda number: (counts[number] - exact[number], number))
        for number in by_remainder[: max(0, count - sum(counts))]:
            counts[number] += 1
        groups = [group.model_copy(update={"count": size}) for group, size in zip(self.peers, counts, strict=True)]
        return self.model_copy(update={"peers": tuple(groups)})


@dataclass(frozen=True)
class Scenario:
    origin: str
    """The file it stands in."""
    directory: Path
    """What the files it names are relative to."""
    world: World
    recipe: Mapping[str, Any] = field(repr=False)

    def manifest(self, seed: int) -> Manifest:
        """Of the run that is simulated. Raises UsageError."""
        fields = dict(self.recipe) | {"seed": seed, "test": any(group.misbehave for group in self.world.peers)}
        if (problem := self.world.problem) is not None:
            options = problem.model_dump(exclude={"kind"})
            fields["model"] = Model(architecture=problem.kind, options=options).model_dump()
            fields["data"] = Data(dataset=problem.kind).model_dump(exclude={"shards"})
        manifest = to_manifest(Recipe(self.origin, self.directory, fields))
        try:
            check_averaging(manifest)
        except ValueError as error:
            raise UsageError(f"{self.origin}: averaging: {error}") from error
        return manifest


def read_scenario(path: str) -> Scenario:
    """Raises UsageError, which names the wrong field."""
    recipe = read_file(path, "scenario")
    origin, fields = recipe.origin, recipe.fields
    known = {*World.model_fields, *Manifest.model_fields} - {"version", "organiser", "test"}
    for name in fields:
        if name not in known:
            raise UsageError(f"{origin}: {name}: unknown; {advice(name, known)}")
    try:
        world = World.model_validate({name: value for name, value in fields.items() if name in World.model_fields})
    except ValidationError as error:
        raise UsageError(f"{origin}: {explain(error, World)}") from error
    rest = {name: value for name, value in fields.items() if name not in World.model_fields}
    scenario = Scenario(origin, recipe.directory, world, rest)
    _check_what_is_trained(scenario)
    _check_names(origin, world)
    return scenario


def _check_what_is_trained(scenario: Scenario) -> None:
    origin, problem, recipe = scenario.origin, scenario.world.problem, scenario.recipe
    if problem is None and "model" not in recipe:
        raise UsageError(f"{origin}: problem: missing; give it, or model and data as in a recipe")
    for name in ("model", "data"):
        if problem is not None and name in recipe:
            raise UsageError(f"{origin}: {name}: the run trains on its problem; remove the one or the other")
    manifest = scenario.manifest(seed=0)
    training = manifest.training
    if isinstance(training, Pipeline):
        raise UsageError(f"{origin}: training.mode: {training.mode!r} cannot be simulated yet")
    if isinstance(training, Gossip):
        _check_groups_gossip(origin, scenario.world)
    plain = not isinstance(training, LocalSgd) or (isinstance(training.inner, Sgd) and not training.inner.momentum)
    if problem is not None and not plain:
        raise UsageError(f"{origin}: training.inner: on a problem it must be sgd without momentum")
    if "files" in recipe.get("data", {}) or "directory" in recipe.get("data", {}):
        raise UsageError(f"{origin}: data: a simulation reads no files; name a data set that needs none: digits")


def _check_groups_gossip(origin: str, world: World) -> None:
    for number, group in enumerate(world.peers):
        if group.role == "aggregator":
            raise UsageError(f"{origin}: peers.{number}.role: a run without rounds has nothing to aggregate; remove it")


def _check_names(origin: str, world: World) -> None:
    names = [group.name for group in world.peers]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise UsageError(f"{origin}: peers.{number}.name: there is another group {name!r}")
    regions = {group.region for group in world.peers}
    for one, others in world.latency.items():
        _check_known(f"{origin}: latency", [one, *others], regions)
    for number, partition in enumerate(world.partitions):
        for side in partition.sides:
            _check_known(f"{origin}: partitions.{number}.sides", side, {*names, *regions})
    for number, crash in enumerate(world.crashes):
        _check_known(f"{origin}: crashes.{number}.peers", crash.peers, {*names, *regions})
    ordered = sorted(world.partitions, key=lambda partition: partition.at)
    for earlier, later in pairwise(ordered):
        if later.at < earlier.at + earlier.seconds:
            raise UsageError(f"{origin}: partitions: one begins at {later.at:g} while another lasts")


def _check_known(where: str, given: Iterable[str], known: set[str]) -> None:
    for name in given:
        if name not in known:
            raise UsageError(f"{where}: there is no {name!r}; {advice(name, known)}")
