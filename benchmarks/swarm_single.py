"""Worker of `swarm.py`: the whole model in one process, with accumulated gradients."""

import time

import numpy as np
import torch
from pipeline_task import PipelineTask
from reporting import Command, Reports, configuration, read_command
from torch import nn
from torch_side import starting_stage


def serve(settings: Command) -> None:
    torch.set_num_threads(settings["threads"])
    reports, task = Reports(), PipelineTask(**settings["task"])
    manifest, dataset, random = task.manifest, task.dataset(), np.random.default_rng(0)
    module = nn.Sequential(*(starting_stage(manifest, number) for number in range(task.stages)))
    optimizer = torch.optim.AdamW(module.parameters(), lr=manifest.training.outer.learning_rate)
    reports.send("up", peer="0", addresses=[], baseline_bytes=0)
    read_command()
    moments = []
    for _ in range(settings["warm_up"] + settings["epochs"]):
        moments.append(time.monotonic())
        optimizer.zero_grad()
        for _ in range(task.microbatches):
            inputs, targets = dataset.batch(random.integers(dataset.train_size, size=task.batch_size))
            (dataset.loss(module(inputs), targets) / task.microbatches).backward()
        optimizer.step()
    moments.append(time.monotonic())
    reports.send("done", moments=moments[settings["warm_up"] :])
    read_command()


if __name__ == "__main__":
    serve(configuration())
