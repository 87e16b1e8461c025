"""Worker of `training.py`: torch's DistributedDataParallel over gloo, with gradient accumulation."""

import time
from contextlib import nullcontext

import torch
from reporting import Command, Reports, configuration, read_command
from tasks import EPOCHS, task_of
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch_side import Microbatches, adamw, starting_module


def serve(settings: Command) -> None:
    torch.set_num_threads(1)
    reports, task = Reports(), task_of(settings["task"], settings["target_batch"])
    manifest = task.manifest(settings["peers"])
    dataset = task.dataset(manifest)
    batches = Microbatches(task, dataset, settings["seed"])
    reports.send("up", peer=str(settings["seed"]), addresses=[], baseline_bytes=0)
    read_command()
    store = f"file://{settings['store']}"
    distributed.init_process_group("gloo", init_method=store, rank=settings["seed"], world_size=settings["peers"])
    module = DistributedDataParallel(starting_module(manifest))
    optimizer = adamw(task, module.parameters())
    steps = task.target_batch // (task.batch_size * settings["peers"])
    distributed.barrier()
    began = time.monotonic()
    epochs, evaluation = 0, {}
    while epochs < EPOCHS and not task.reached(evaluation):
        optimizer.zero_grad()
        for step in range(steps):
            with module.no_sync() if step < steps - 1 else nullcontext():
                (batches.loss(module) / steps).backward()
        optimizer.step()
        epochs += 1
        if epochs % task.every_epochs == 0:
            evaluation = dataset.evaluate(module, manifest.evaluation.samples)
    reports.send("done", began=began, held=time.monotonic(), epochs=epochs, evaluation=evaluation)
    distributed.barrier()
    distributed.destroy_process_group()
    read_command()


if __name__ == "__main__":
    serve(configuration())
