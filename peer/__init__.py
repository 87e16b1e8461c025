"""The daemon: identity, configuration, training, snapshots, rounds and the control API."""
