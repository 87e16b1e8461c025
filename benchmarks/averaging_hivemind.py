"""Worker of `averaging.py`: one peer with hivemind's `DecentralizedAverager`, used as its own benchmark uses it."""

import os
import time
from typing import Any

import numpy as np
import torch
from hivemind.averaging import DecentralizedAverager
from hivemind.averaging.control import AveragingStage
from hivemind.compression import Float16Compression, NoCompression, Uniform8BitQuantization
from hivemind.compression.quantization import Quantization
from hivemind.dht import DHT
from reporting import Command, Reports, configuration, read_command
from resources import family, forget_peak, peak_bytes, resident_bytes
from vectors import relative_error, vector

from protocols.encoding import digest

CODECS = {"none": NoCompression, "float16": Float16Compression, "int8": Uniform8BitQuantization}
MATCHMAKING_SECONDS = 5.0
"""hivemind's default; a group that is full begins sooner."""
POLL_SECONDS = 0.01


def extract(self: Quantization, message: Any) -> torch.Tensor:
    """hivemind's own `Quantization.extract`, mended: with NumPy 2.4 it fails, and rounds end without an average.

    (It takes an array of one element for a number.)
    """
    codebook_size = np.frombuffer(message.buffer, count=1, dtype=np.int64).item()
    codebook = np.frombuffer(message.buffer, offset=8, count=codebook_size, dtype=self.codebook_dtype)
    quantized = np.frombuffer(message.buffer, offset=8 + codebook.nbytes, dtype=self.indices_dtype)
    indices = torch.as_tensor(quantized, dtype=torch.int64).reshape(tuple(message.size))
    return torch.as_tensor(codebook).to(dtype=getattr(torch, message.dtype))[indices]


def serve(settings: Command) -> None:
    Quantization.extract = extract
    torch.set_num_threads(1)
    reports = Reports()
    first = settings.get("initial_peers") or []
    dht = DHT(start=True, initial_peers=first, host_maddrs=[f"/ip4/{settings['host']}/tcp/0"])
    baseline = resident_bytes(os.getpid())
    update = torch.from_numpy(vector(settings["seed"], settings["size"]))
    tensor = update.clone()
    averager = DecentralizedAverager(
        [tensor],
        dht,
        start=True,
        prefix="benchmark",
        target_group_size=settings["peers"],
        min_group_size=settings["peers"],
        min_matchmaking_time=MATCHMAKING_SECONDS,
        compression=CODECS[settings["codec"]](),
    )
    try:
        addresses = [str(address) for address in dht.get_visible_maddrs()]
        reports.send("up", peer=str(dht.peer_id), addresses=addresses, baseline_bytes=baseline)
        read_command()
        play(averager, update, settings, reports)
    finally:
        averager.shutdown()
        dht.shutdown()


def play(averager: DecentralizedAverager, update: torch.Tensor, settings: Command, reports: Reports) -> None:
    """Rounds on command, until told to stop. The group is found before a round, and not counted as part of it."""
    while True:
        with averager.get_tensors() as tensors:
            tensors[0][...] = update
        asked = time.monotonic()
        step = averager.step(wait=False, require_trigger=True)
        while step.stage is not AveragingStage.AWAITING_TRIGGER:
            time.sleep(POLL_SECONDS)
        matchmaking = time.monotonic() - asked
        processes = [process for process in family(os.getpid()) if resident_bytes(process)]
        for process in processes:
            forget_peak(process)
        reports.send("ready", matchmaking_seconds=matchmaking)
        received = read_command()
        if received is None or received["command"] == "stop":
            step.cancel()
            return
        began = time.monotonic()
        step.allow_allreduce()
        members = step.result()
        held = time.monotonic()
        peak = peak_bytes(averager.pid)
        reports.send("done", began=began, held=held, peak_bytes=peak, members=len(members))
        received = read_command()
        if received is not None and received["command"] == "check":
            with averager.get_tensors() as tensors:
                result = tensors[0].numpy().copy()
            error = relative_error(result, settings["peers"])
            reports.send("checked", digest=digest(memoryview(result).cast("B")).hex(), error=error)
            read_command()


if __name__ == "__main__":
    serve(configuration())
