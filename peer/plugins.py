"""Finding models and data sets by the name a manifest gives: built in, or from a package the volunteer installed."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from peer.recipe_errors import explain
from protocols.manifest import OptionValue

PluginT = TypeVar("PluginT")
OptionsT = TypeVar("OptionsT", bound="PluginOptions")


class PluginError(ValueError):
    """A manifest names a model or a data set that this machine does not have, or gives it wrong options."""


class PluginOptions(BaseModel):
    """The options of one model or data set: only what it declares, each of the declared type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Plugins(Generic[PluginT]):
    """The plug-ins of one kind; they are imported when they are first asked for.

    A built-in cannot be replaced: an entry point of the same name is not looked at.
    """

    def __init__(
        self, kind: str, field: str, group: str, plugin_type: type[PluginT], built_in: Mapping[str, str]
    ) -> None:
        """`kind` in words, the manifest's `field` that names one, the entry points' `group`, and `module:attribute`
        of each built-in."""
        self._kind = kind
        self._field = field
        self._group = group
        self._type = plugin_type
        self._built_in = {name: EntryPoint(name, value, group) for name, value in built_in.items()}
        self._found: dict[str, PluginT] = {}

    def find(self, name: str) -> PluginT:
        """Raises PluginError."""
        if name not in self._found:  # to look at all installed packages takes some twenty milliseconds
            self._found[name] = self._load(name)
        return self._found[name]

    def _load(self, name: str) -> PluginT:
        known = {entry.name: entry for entry in entry_points(group=self._group)} | self._built_in
        if name not in known:
            raise PluginError(
                f"{self._field}: there is no {self._kind} {name!r} here{self._advice(name, sorted(known))}"
            )
        try:
            plugin = known[name].load()
        except (ImportError, AttributeError) as error:
            raise PluginError(f"{self._field}: the {self._kind} {name!r} cannot be loaded: {error}") from error
        if not isinstance(plugin, self._type):
            what = f"{known[name].value} is not a {self._type.__name__}, so it is no {self._kind}"
            raise PluginError(f"{self._field}: {what}")
        return plugin

    def _advice(self, name: str, known: Sequence[str]) -> str:
        if close := get_close_matches(name, known, n=1):
            return f"; did you mean {close[0]!r}?"
        install = f"install the package that provides it (entry point group {self._group})"
        return f": it is not one of {', '.join(known)}; {install}"


def parse_options(options_type: type[OptionsT], options: Mapping[str, OptionValue], field: str) -> OptionsT:
    """`options` as the plug-in declares them; `field` is where they stand in the manifest. Raises PluginError."""
    try:
        return options_type.model_validate(dict(options))
    except ValidationError as error:
        raise PluginError(explain(error, options_type, inside=field)) from error
