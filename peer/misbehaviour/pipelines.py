"""Members of a pipeline that attack on purpose: each changes what the honest parts of a peer are put together from."""

from collections.abc import Callable, Mapping
from typing import Any

from peer.misbehaviour.pipeline_members import busy_keeper, garbage_work, hoarded_microbatches, idle_keeper
from peer.misbehaviour.stage_peers import (
    false_counts,
    nan_answers,
    withheld_answers,
    wrong_activations,
    wrong_gradients,
)
from peer.swarm.assembly import assemble
from peer.swarm.pipeline import PipelinePeer

PIPELINE_ATTACKS: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "wrong_activations": wrong_activations,
    "wrong_gradients": wrong_gradients,
    "nan_answers": nan_answers,
    "withheld_answers": withheld_answers,
    "false_counts": false_counts,
    "garbage_work": garbage_work,
    "hoarded_microbatches": hoarded_microbatches,
    "idle_keeper": idle_keeper,
    "busy_keeper": busy_keeper,
}
"""Each takes what `assemble` is given, and gives what it is given instead."""


def assemble_pipeline(misbehaviour: str | None, **given: Any) -> PipelinePeer:
    """A peer that misbehaves so; an honest one for None."""
    return assemble(**(PIPELINE_ATTACKS[misbehaviour](given) if misbehaviour is not None else given))
