"""The command `peer`, but what it does in threads takes minutes: `python slow_peer.py WHAT …/bin/peer ARGUMENTS`."""

import runpy
import sys
import time
from typing import Any

from peer.snapshots import SnapshotStore
from peer.trainer import Trainer

MINUTES = 600.0
SLOW = {"microbatch": (Trainer, "train_microbatch"), "save": (SnapshotStore, "save")}
STUCK = "this takes minutes"


def take_minutes(*_arguments: Any) -> None:
    print(STUCK, flush=True)
    time.sleep(MINUTES)


if __name__ == "__main__":
    _, what, *sys.argv = sys.argv
    setattr(*SLOW[what], take_minutes)
    runpy.run_path(sys.argv[0], run_name="__main__")
