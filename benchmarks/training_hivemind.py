"""Worker of `training.py`: `hivemind.Optimizer`, averaging gradients as it accumulates the target batch."""

import time

import hivemind
import torch
from reporting import Command, Reports, configuration, read_command
from tasks import EPOCHS, task_of
from torch_side import Microbatches, adamw, starting_module

MATCHMAKING_SECONDS = 1.0
"""Its default is 15 and its quickstart takes 3; groups that are full begin sooner."""


def serve(settings: Command) -> None:
    torch.set_num_threads(1)
    reports, task = Reports(), task_of(settings["task"], settings["target_batch"])
    manifest = task.manifest(settings["peers"])
    dataset = task.dataset(manifest)
    batches = Microbatches(task, dataset, settings["seed"])
    module = starting_module(manifest)
    dht = hivemind.DHT(
        start=True, initial_peers=settings["initial_peers"], host_maddrs=[f"/ip4/{settings['host']}/tcp/0"]
    )
    optimizer = hivemind.Optimizer(
        dht=dht,
        run_id="benchmark",
        params=list(module.parameters()),
        optimizer=lambda parameters: adamw(task, parameters),
        batch_size_per_step=task.batch_size,
        target_batch_size=task.target_batch,
        matchmaking_time=MATCHMAKING_SECONDS,
        averaging_timeout=10.0,
        averager_opts={"target_group_size": settings["peers"], "request_timeout": MATCHMAKING_SECONDS / 2},
    )
    addresses = [str(address) for address in dht.get_visible_maddrs()]
    reports.send("up", peer=str(dht.peer_id), addresses=addresses, baseline_bytes=0)
    read_command()
    began = time.monotonic()
    evaluated, evaluation = 0, {}
    while optimizer.local_epoch < EPOCHS and not task.reached(evaluation):
        optimizer.zero_grad()
        batches.loss(module).backward()
        optimizer.step()
        if optimizer.local_epoch >= evaluated + task.every_epochs:
            evaluated = optimizer.local_epoch
            evaluation = dataset.evaluate(module, manifest.evaluation.samples)
    reports.send("done", began=began, held=time.monotonic(), epochs=optimizer.local_epoch, evaluation=evaluation)
    read_command()
    optimizer.shutdown()
    dht.shutdown()


if __name__ == "__main__":
    serve(configuration())
