"""From a rule's text, as a manifest writes it, to the rule."""

import inspect
from typing import Any, get_args

from protocols.aggregation.registry import PRE_AGGREGATORS, RULES, STAGES, Stage
from protocols.aggregation.rule import Rule


def make_rule(spec: str, f: int, **parameters: Any) -> Rule:
    """The rule that `spec` names, for `f` rows that may be anything.

    `spec` is a rule, or pre-aggregators and a rule with `|` between them: "nnm | trimmed_mean". `parameters` go to the
    stages that have them by name: make_rule("centered_clip", f=3, tau=1.0). Raises ValueError: an unknown name or
    parameter, one of the wrong type, a rule that is not last, an f that is no count.
    """
    if not isinstance(f, int) or isinstance(f, bool) or f < 0:
        raise ValueError(f"f counts rows: a whole number, not negative; f is {f!r}")
    stages = tuple(_stage(name.strip()) for name in spec.split("|"))
    if [stage.is_rule for stage in stages] != [False] * (len(stages) - 1) + [True]:
        raise ValueError(f"{spec!r} has to be pre-aggregators ({', '.join(PRE_AGGREGATORS)}) and, at the end, one rule")
    accepted = [_parameters_of(stage) for stage in stages]
    for name, value in parameters.items():
        types = [names[name] for names in accepted if name in names]
        if not types:
            known = ", ".join(sorted(set().union(*accepted))) or "none"
            raise ValueError(f"{spec!r} has no parameter {name!r}; it has {known}")
        if isinstance(value, bool) or not all(isinstance(value, kinds) for kinds in types):
            wanted = "a number" if all(float in kinds for kinds in types) else "a whole number"
            raise ValueError(f"{name} must be {wanted}, not {value!r}")
    return Rule(
        stages, f, tuple({name: parameters[name] for name in parameters if name in names} for names in accepted)
    )


def _stage(name: str) -> Stage:
    if name not in STAGES:
        known = f"{', '.join(RULES)}; before it {', '.join(PRE_AGGREGATORS)}"
        raise ValueError(f"there is no aggregation rule {name!r}; choose one of {known}")
    return STAGES[name]


def _parameters_of(stage: Stage) -> dict[str, tuple[type, ...]]:
    """By name, the types that a value may have."""
    function = stage.mix or stage.kernel
    assert function is not None
    parameters = inspect.signature(function).parameters.values()
    return {
        parameter.name: _types(parameter.annotation)
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def _types(annotation: Any) -> tuple[type, ...]:
    """Of `float | None`, say: every whole number is a number."""
    types = get_args(annotation) or (annotation,)
    return (*types, int) if float in types else types
