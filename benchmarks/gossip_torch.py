"""Worker of `gossip_training.py`: torch's DistributedDataParallel, or `decent-dp`, over gloo."""

import os
import time
from typing import Any

import torch
from reporting import Command, Reports, configuration, read_command
from tasks import task_of
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch_side import Microbatches, starting_module

MOST_STEPS = 20_000


def wrapped(implementation: str, module: torch.nn.Module, rate: float) -> tuple[torch.nn.Module, Any]:
    """The module as its implementation trains it, and the optimizer to step; None where a backward pass does that."""
    if implementation == "ddp":
        module = DistributedDataParallel(module)
        return module, torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=0.0)
    from decent_dp.ddp import DecentralizedDataParallel  # noqa: PLC0415  (not installed where it is not compared)

    def optimizer(named: list[tuple[str, torch.Tensor]]) -> torch.optim.Optimizer:
        return torch.optim.AdamW([parameter for _, parameter in named], lr=rate, weight_decay=0.0)

    return DecentralizedDataParallel(module, optim_fn=optimizer, topology="one-peer-exp"), None


def serve(settings: Command) -> None:
    torch.set_num_threads(1)
    reports, task = Reports(), task_of("digits")
    manifest = task.manifest(settings["peers"])
    dataset = task.dataset(manifest)
    batches = Microbatches(task, dataset, settings["seed"])
    reports.send("up", peer=str(settings["seed"]), addresses=[], baseline_bytes=0)
    read_command()
    os.environ["GLOO_SOCKET_IFNAME"] = "lo" if settings["host"] == "127.0.0.1" else "eth0"
    store = f"file://{settings['store']}"
    distributed.init_process_group("gloo", init_method=store, rank=settings["seed"], world_size=settings["peers"])
    module, optimizer = wrapped(settings["implementation"], starting_module(manifest), settings["learning_rate"])
    distributed.barrier()
    began = held = time.monotonic()
    steps, evaluation = 0, {}
    reached = torch.zeros(1)
    while steps < MOST_STEPS and not reached:
        batches.loss(module).backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()
        steps += 1
        if steps % settings["evaluate_steps"] == 0:
            module.eval()
            with torch.no_grad():
                evaluation = dataset.evaluate(module, manifest.evaluation.samples)
            module.train()
            held = time.monotonic()
            reached.fill_(task.reached(evaluation))
            distributed.all_reduce(reached)  # all stop at once, or some would wait for who has stopped
    reports.send("done", began=began, held=held, steps=steps, exchanges=steps, evaluation=evaluation)
    distributed.barrier()
    distributed.destroy_process_group()
    read_command()


if __name__ == "__main__":
    serve(configuration())
