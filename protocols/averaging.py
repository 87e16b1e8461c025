"""Whether this program can average as a run's manifest says."""

from protocols.gossip.mixing import neighbourhood_of
from protocols.manifest import Gossip, Manifest
from protocols.rules import rule_of


def check_averaging(manifest: Manifest) -> None:
    """Raises ValueError when it knows no such rule, or so small a group or neighbourhood cannot be served by it."""
    if isinstance(manifest.training, Gossip):
        neighbourhood_of(manifest)
    else:
        rule_of(manifest.averaging)
