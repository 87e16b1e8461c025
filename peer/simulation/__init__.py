"""Whole swarms in one process under virtual time: the daemon's own code over a simulated network."""
