"""From a rule's text, as a manifest writes it, to the rule."""

import inspect
from typing import Any

from protocols.aggregation.registry import PRE_AGGREGATORS, RULES, STAGES, Stage
from protocols.aggregation.rule import Rule


def make_rule(spec: str, f: int, **parameters: Any) -> Rule:
    """The rule that `spec` names, for `f` rows that may be anything.

    `spec` is a rule, or pre-aggregators and a rule with `|` between them: "nnm | trimmed_mean". `parameters` go to the
    stages that have them by name: make_rule("centered_clip", f=3, tau=1.0). Raises ValueError: an unknown name or
    parameter, a rule that is not last, an f that is no count.
    """
    if not isinstance(f, int) or isinstance(f, bool) or f < 0:
        raise ValueError(f"f counts rows: a whole number, not negative; f is {f!r}")
    stages = tuple(_stage(name.strip()) for name in spec.split("|"))
    if [stage.is_rule for stage in stages] != [False] * (len(stages) - 1) + [True]:
        raise ValueError(f"{spec!r} has to be pre-aggregators ({', '.join(PRE_AGGREGATORS)}) and, at the end, one rule")
    accepted = [_parameters_of(stage) for stage in stages]
    for name in parameters:
        if not any(name in names for names in accepted):
            raise ValueError(f"{spec!r} has no parameter {name!r}; it has {sorted(set().union(*accepted))}")
    return Rule(stages, f, tuple({name: parameters[name] for name in names & set(parameters)} for names in accepted))


def _stage(name: str) -> Stage:
    if name not in STAGES:
        known = f"{', '.join(RULES)}; before it {', '.join(PRE_AGGREGATORS)}"
        raise ValueError(f"there is no aggregation rule {name!r}; choose one of {known}")
    return STAGES[name]


def _parameters_of(stage: Stage) -> set[str]:
    function = stage.mix or stage.kernel
    assert function is not None
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
