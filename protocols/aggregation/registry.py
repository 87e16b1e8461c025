"""Every rule and pre-aggregator by name, with the (n, f) that it can serve."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from protocols.aggregation import centres, coordinates, preaggregators, selection, spectra
from protocols.aggregation.geometry import Matrix


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a stage asks of n rows of which f may be anything: `text` says it, `holds` tells."""

    text: str
    holds: Callable[[int, int], bool]


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a rule: rows are mixed by `mix` (Geometry, f → k × points, or the weights of one combination), then
    made one by `kernel` (rows, f → vector), coordinate by coordinate. A pre-aggregator has no kernel and is no rule."""

    name: str
    requirement: Requirement
    mix: Callable[..., Matrix] | None = None
    kernel: Callable[..., Tensor] | None = None
    is_rule: bool = True
    reads_gram: bool = True

    def require(self, rows: int, f: int) -> None:
        """Raises ValueError when the stage cannot serve f attackers among so many rows."""
        if rows < 1 or not self.requirement.holds(rows, f):
            raise ValueError(f"{self.name} requires {self.requirement.text}; n is {rows} and f is {f}")


_SOME_HONEST = Requirement("n > f", lambda n, f: n > f)
_MAJORITY = Requirement("n > 2f (an honest majority)", lambda n, f: n > 2 * f)
_BULYAN = Requirement("n ≥ 4f + 3", lambda n, f: n >= 4 * f + 3)


def _coordinate_wise(kernel: Callable[[Tensor, int], Tensor]) -> Stage:
    return Stage(kernel.__name__, _MAJORITY, kernel=kernel, reads_gram=False)


def _bulyan_mean(rows: Tensor, f: int) -> Tensor:
    return coordinates.nearest_to_median(rows, len(rows) - 2 * f)


_STAGES = (
    Stage("mean", _SOME_HONEST, mix=selection.mean, reads_gram=False),
    _coordinate_wise(coordinates.median),
    _coordinate_wise(coordinates.trimmed_mean),
    _coordinate_wise(coordinates.meamed),
    _coordinate_wise(coordinates.sign_majority),
    Stage("krum", _MAJORITY, mix=selection.krum),
    Stage("multi_krum", _MAJORITY, mix=selection.multi_krum),
    Stage("mda", _MAJORITY, mix=selection.mda),
    Stage("monna", _MAJORITY, mix=selection.monna),
    Stage("geometric_median", _MAJORITY, mix=centres.geometric_median),
    Stage("centered_clip", _MAJORITY, mix=centres.centered_clip),
    Stage("caf", _MAJORITY, mix=spectra.caf),
    Stage("flag", _MAJORITY, mix=spectra.flag),
    Stage("bulyan", _BULYAN, mix=selection.bulyan_selection, kernel=_bulyan_mean),
    Stage("nnm", _MAJORITY, mix=preaggregators.nnm, is_rule=False),
    Stage("bucketing", _SOME_HONEST, mix=preaggregators.bucketing, is_rule=False, reads_gram=False),
    Stage("clipping", _SOME_HONEST, mix=preaggregators.clipping, is_rule=False),
    Stage("arc", _MAJORITY, mix=preaggregators.arc, is_rule=False),
)

STAGES = {stage.name: stage for stage in _STAGES}
RULES = tuple(stage.name for stage in _STAGES if stage.is_rule)
PRE_AGGREGATORS = tuple(stage.name for stage in _STAGES if not stage.is_rule)
