"""A member of a run without groups: trains at its own pace and mixes with neighbours (`protocols.gossip`)."""
