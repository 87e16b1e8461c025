"""What a member does in a run: trains, only reduces parts, or only watches."""

from typing import Literal

Role = Literal["trainer", "aggregator", "monitor"]
