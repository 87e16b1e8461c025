"""Worker of `swarm.py`: a stage of torch's own pipeline (`torch.distributed.pipelining`), over gloo."""

import time

import torch
from pipeline_task import PipelineTask
from reporting import Command, Reports, configuration, read_command
from torch import Tensor, distributed, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.utils.checkpoint import checkpoint
from torch_side import starting_stage

SCHEDULES = {"1f1b": Schedule1F1B, "gpipe": ScheduleGPipe}


class Recomputed(nn.Module):
    """Keeps the inputs of a microbatch and computes the rest of its forward pass anew."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = checkpoint(self.module, inputs, use_reentrant=False)
        return outputs


def serve(settings: Command) -> None:
    torch.set_num_threads(1)
    reports, task, number = Reports(), PipelineTask(**settings["task"]), settings["seed"]
    manifest, dataset = task.manifest, task.dataset()
    module = starting_stage(manifest, number)
    optimizer = torch.optim.AdamW(module.parameters(), lr=manifest.training.outer.learning_rate)
    reports.send("up", peer=str(number), addresses=[], baseline_bytes=0)
    read_command()
    store = f"file://{settings['store']}"
    distributed.init_process_group("gloo", init_method=store, rank=number, world_size=task.stages)
    first, last = number == 0, number == task.stages - 1
    stage_module = module if last or not settings["recompute"] else Recomputed(module)
    stage = PipelineStage(stage_module, number, task.stages, torch.device("cpu"))
    schedule = SCHEDULES[settings["schedule"]](stage, task.microbatches, loss_fn=dataset.loss)
    moments = []
    for epoch in range(settings["warm_up"] + settings["epochs"]):
        distributed.barrier()
        moments.append(time.monotonic())
        optimizer.zero_grad()
        indices = torch.randint(dataset.train_size, (task.epoch_samples,), generator=_seeded(epoch)).numpy()
        inputs, targets = dataset.batch(indices)
        schedule.step(*([inputs] if first else []), **({"target": targets} if last else {}))
        optimizer.step()
    distributed.barrier()
    moments.append(time.monotonic())
    reports.send("done", moments=moments[settings["warm_up"] :])
    distributed.destroy_process_group()
    read_command()


def _seeded(epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(epoch)


if __name__ == "__main__":
    serve(configuration())
