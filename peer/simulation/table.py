"""What the tables of a scenario have in common."""

from random import Random
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


class Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Range(Table):
    """A number of each peer's own, drawn evenly between the two; where they are equal, the same for all."""

    least: float
    most: float

    def draw(self, random: Random) -> float:
        return random.uniform(self.least, self.most)


def _as_range(value: Any) -> Any:
    if isinstance(value, Range):
        return value
    ends = value if isinstance(value, list | tuple) else [value, value]
    if len(ends) != 2 or not all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends):
        raise ValueError(f"must be a number, or [least, most], not {value!r}")
    least, most = map(float, ends)
    if not least <= most:
        raise ValueError(f"[least, most] are in the wrong order: {value!r}")
    return Range(least=least, most=most)


def _not_negative(value: Range) -> Range:
    if value.least < 0:
        raise ValueError(f"must not be negative, not {value.least:g}")
    return value


def _positive(value: Range) -> Range:
    if value.least <= 0:
        raise ValueError(f"must be greater than 0, not {value.least:g}")
    if value.least < 1 / LARGEST or value.most > LARGEST:
        raise ValueError(f"must be from {1 / LARGEST:g} to {LARGEST:g}")
    return value


def _probability(value: Range) -> Range:
    if value.most > 1:
        raise ValueError(f"must be at most 1, not {value.most:g}")
    return _not_negative(value)


def _offset(value: Range) -> Range:
    if largest := next((end for end in (value.least, value.most) if abs(end) > LARGEST_OFFSET_SECONDS), None):
        raise ValueError(f"must be at most {LARGEST_OFFSET_SECONDS:g} seconds ahead or behind, not {largest:g}")
    return value


def _jitter(value: Range) -> Range:
    if value.most > LARGEST_JITTER:
        raise ValueError(f"must be at most {LARGEST_JITTER:g}, not {value.most:g}")
    return _not_negative(value)


LARGEST = 1e9
LARGEST_JITTER = 10.0
"""Of a logarithm: times then differ by e to the tenth."""
LARGEST_OFFSET_SECONDS = 1e9
"""Of a clock. With a larger one, times do not fit into messages."""
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
Seconds = Annotated[float, Field(gt=0, le=1e9)]
Moment = Annotated[float, Field(ge=0, le=1e9)]
"""Seconds from the beginning."""
Fraction = Annotated[float, Field(ge=0, le=1)]
AnyRange = Annotated[Range, BeforeValidator(_as_range)]
NotNegative = Annotated[AnyRange, AfterValidator(_not_negative)]
Positive = Annotated[AnyRange, AfterValidator(_positive)]
Jitter = Annotated[AnyRange, AfterValidator(_jitter)]
Probability = Annotated[AnyRange, AfterValidator(_probability)]
Offset = Annotated[AnyRange, AfterValidator(_offset)]
