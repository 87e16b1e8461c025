"""What is wrong with a recipe, as `field: what`, where the field is written as its author wrote it."""

from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from peer.setting_sources import shortened, what_is_wrong


def explain(
    error: ValidationError,
    table: type[BaseModel],
    inside: str = "",
    hidden: Mapping[str, Collection[str]] | None = None,
    more: Mapping[str, Collection[str]] | None = None,
) -> str:
    """The first error of validating `table`, which stands in the field `inside`.

    Of the fields of a table, `hidden[table]` may not be written; `more[table]` may be besides ("" is the outermost).
    """
    errors = error.errors(include_url=False)
    # A mistyped field is both unknown and missing: the first says more.
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    path, known = _locate(table, first["loc"])
    field = ".".join([inside, *path] if inside else path)
    match first["type"]:
        case "extra_forbidden":
            place = ".".join(path[:-1])
            allowed = {*known, *(more or {}).get(place, ())} - {*(hidden or {}).get(place, ())}
            return f"{field}: unknown; {advice(path[-1], allowed)}"
        case "missing":
            return f"{field}: missing"
        case "union_tag_invalid":
            tag, tags = first["ctx"]["tag"], first["ctx"]["expected_tags"]
            return f"{field}.{_discriminator(first)}: must be one of {tags}, not {tag!r}"
        case "union_tag_not_found":
            return f"{field}.{_discriminator(first)}: missing"
        case "model_type" | "dict_type" | "model_attributes_type":
            return f"{field}: must be a table, not {shortened(first['input'])}"
    if path and first["loc"][-1] != path[-1] and first["type"].endswith("_type"):  # none of a union of types
        return f"{field}: must be true, false, a number or a text, not {shortened(first['input'])}"
    return f"{field}: {what_is_wrong(first)}" if field else what_is_wrong(first)


def advice(wrong: str, known: Collection[str]) -> str:
    """What to write instead of `wrong`."""
    if close := get_close_matches(wrong, known, n=1):
        return f"did you mean {close[0]!r}?"
    return f"it may be {_or(sorted(known))}" if known else "remove it, for there is nothing to set here"


def _discriminator(error: Any) -> str:
    return str(error["ctx"]["discriminator"]).strip("'")


def _locate(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[list[str], list[str]]:
    """The path without what pydantic adds for a union, and the fields that may stand at its end."""
    path: list[str] = []
    tables = [model]
    known: list[str] = []
    for part in location:
        if path and not tables and path[-1] not in ("options", "shards"):
            break  # a plain value: what follows are the types it was tried as
        tagged = [table for table in tables if isinstance(part, str) and part in _defaults(table)]
        known = [name for table in tables for name in table.model_fields]
        if tagged and part not in known:
            tables = tagged
            continue
        path.append(str(part))
        if isinstance(part, str):  # a number is a place in a sequence of tables
            fields = [table.model_fields[part] for table in tables if part in table.model_fields]
            tables = [inner for field in fields for inner in _tables(field.annotation)]
    return path, known


def _defaults(table: type[BaseModel]) -> list[Any]:
    """A table of a union has its tag among these."""
    return [field.default for field in table.model_fields.values()]


def _tables(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models inside a type: of a union, of a sequence."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _tables(argument)


def _or(names: list[str]) -> str:
    return ", ".join(names[:-1]) + f" or {names[-1]}" if len(names) > 1 else "".join(names)
