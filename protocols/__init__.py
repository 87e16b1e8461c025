"""The algorithms and the messages, without I/O: no clock, no network, no global randomness."""
