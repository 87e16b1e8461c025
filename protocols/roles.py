"""What a member does: trains, only reduces parts, only watches; in a pipeline serves a stage, trains, or both."""

from typing import Literal

Role = Literal["trainer", "aggregator", "monitor", "stage", "both"]
TRAINING: tuple[Role, ...] = ("trainer", "both")
"""Who begins microbatches."""
