"""The built-in run `demo`: everybody who runs the same version of the program has the same run id for it."""

from functools import cache

from peer.recipes import built_in_recipe, to_manifest
from protocols.manifest import Manifest


@cache
def demo_manifest() -> Manifest:
    """The run of the recipe `demo.toml`; it has no organiser."""
    return to_manifest(built_in_recipe("demo"))
