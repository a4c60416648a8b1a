"""The loop that all trainings of super-resolution share."""

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import (
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    send_to_device,
    tqdm,
)
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.utils.data import DataLoader

from coz.render.pillow import to_pillow
from tools.image_file import to_png

from .card import write_card
from .checkpoint import Checkpoint, LossLog, read_checkpoint, write_checkpoint, write_whole
from .config import TrainingConfig
from .dataset import CropDataset, open_crops
from .memory import advise, explain_out_of_memory
from .preview import draw_preview
from .task import Task
from .texts import Batch

MAX_GRADIENT_NORM = 1.0
"""Maximum norm of each optimizer's gradients. Source: Chain-of-Zoom train_osediff_sd3.py."""

FREE_KEYS = {
    *("data", "out", "lpips", "steps", "patience", "workers", "checkpointing", "text_cached"),
    *("save_every", "preview_every", "preview_zooms"),
}
"""Keys of a config that may change when a run continues."""

MOVABLE_KEYS = ("model", "vae", "vlm", "start_lora", "start_vae_encoder")
"""Keys whose files may be moved, but must keep their names."""

MAX_WAIT = timedelta(days=7)
"""Maximum time that processes wait for the first one, which may write prompts for days."""


def run(config: TrainingConfig, load: Callable[..., Task]) -> None:
    """Load a task with ``load`` and train it as a config says, or continue an unfinished training."""
    # PEFT warns of every adapter after the first.
    warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
    advice = (
        f"{advise(config)}. The last checkpoint is kept: run it again to continue. For another batch or "
        "precision, choose another out"
    )
    with explain_out_of_memory(advice):
        accelerator = make_accelerator(config)
        crops, held_out = open_crops(config), open_crops(config, held_out=True)
        task = load(config, accelerator.device, crops, held_out)
        train(config, task, crops, held_out, accelerator)


def make_accelerator(config: TrainingConfig) -> Accelerator:
    """Start accelerate. It prepares no models, because DDP does not expect two backward passes in a step."""
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        # Otherwise the settings of `accelerate launch` would count, and fp16 scales the gradients.
        mixed_precision="no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=config.accumulation),
        log_with="tensorboard",
        project_dir=config.out,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=MAX_WAIT)],
    )


def train(
    config: TrainingConfig,
    task: Task,
    data: CropDataset,
    held_out: CropDataset,
    accelerator: Accelerator,
) -> None:
    """Train, or continue an interrupted training, and write the result to ``out``/result."""
    begin, network, main = time.perf_counter(), task.network, accelerator.is_main_process
    groups = {name: network.list_parameters(name) for name in task.adapters}
    optimizers = {
        name: torch.optim.AdamW(group, lr=config.learning_rate, weight_decay=1e-2)
        for name, group in groups.items()
    }
    result, decay = network.list_parameters(*task.averaged), getattr(config, "ema", 0.0)
    average = EMAModel(result, decay=decay) if decay else None
    settings = config.model_dump(mode="json", exclude=FREE_KEYS)
    settings |= {name: Path(settings[name]).name for name in MOVABLE_KEYS if settings.get(name)}
    settings |= {"processes": accelerator.num_processes, "crops": len(data)}
    config.out.mkdir(parents=True, exist_ok=True)
    folder, start = config.out / "result", 0
    if checkpoint := read_checkpoint(config.out, settings):
        start = checkpoint.step
        network.set_loras(checkpoint.loras)
        task.set_state(checkpoint.extra["task"])
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(checkpoint.optimizers[name])
        if average:
            average.load_state_dict(checkpoint.extra["average"])
            average.to(accelerator.device)
        accelerator.print(f"continues after step {start}")
    accelerator.wait_for_everyone()
    log = LossLog(config.out / "losses.jsonl", start) if main else None
    options = {"tensorboard": {"purge_step": start + 1}}
    accelerator.init_trackers("tensorboard", init_kwargs=options)
    if not torch.cuda.is_available():
        accelerator.print("There is no GPU here, so this will be slow: see the time that is left.")
    batches, step = read_batches(config, data, accelerator, start), start
    bar = tqdm(total=config.steps, initial=start, desc="Training", unit="step")
    while not (task.is_over or step >= config.steps):
        step += 1
        sums: dict[str, Tensor] = {}
        seen: list[Batch] = []
        for number in range((step - 1) * config.accumulation, step * config.accumulation):
            batch = send_to_device(next(batches), accelerator.device, non_blocking=True)
            seen.append(batch)
            place = number * accelerator.num_processes + accelerator.process_index
            rng = make_generator(config.seed, 1, place)
            losses = task.compute_gradients(batch, rng, accelerator.backward)
            for name, loss in losses.items():
                if not math.isfinite(loss.item()):
                    stop_at(step, name, [batch], config.out)
                sums[name] = sums.get(name, 0) + loss.detach() / config.accumulation
        for name, group in groups.items():
            gradients = accelerator.reduce([parameter.grad for parameter in group], "mean")
            for parameter, gradient in zip(group, gradients, strict=True):
                parameter.grad = gradient
            norm = torch.nn.utils.clip_grad_norm_(group, MAX_GRADIENT_NORM)
            if not torch.isfinite(norm):
                stop_at(step, f"the gradient of {name}", seen, config.out)
            optimizers[name].step()
            optimizers[name].zero_grad()
        if average:
            average.step(result)
        found = task.finish_step(step)
        means = accelerator.reduce(torch.stack(list(sums.values())), "mean").tolist()
        entry = dict(zip(sums, means, strict=True)) | found
        accelerator.log(entry, step)
        bar.update()
        if main:
            log.write({"step": step, **entry})
        is_last = task.is_over or step >= config.steps
        saves = is_last or step % config.save_every == 0
        previews = config.preview_every and (is_last or step % config.preview_every == 0)
        if main and saves:
            states = {name: optimizer.state_dict() for name, optimizer in optimizers.items()}
            extra = {"task": task.get_state()}
            extra |= {"average": average.state_dict()} if average else {}
            loras = network.get_loras()
            write_checkpoint(config.out, Checkpoint(step, settings, loras, states, extra))
        if main and (saves or previews):
            with use_average(average, result):
                if saves:
                    task.export(folder, step)
                if previews:
                    write_preview(config, task, held_out, step, accelerator)
        accelerator.wait_for_everyone()
    bar.close()
    if main:
        if step == start:
            key = "patience" if task.is_over else "steps"
            accelerator.print(f"all {start} steps are done: raise {key} to train on")
            with use_average(average, result):
                task.export(folder, start)
        cost = measure_cost(time.perf_counter() - begin, step - start)
        write_card(config, folder, settings, log.read(), cost)
        accelerator.print(f"SR LoRA and VAE encoder for CoZ Load SR LoRA: {folder}")
    accelerator.end_training()


def measure_cost(seconds: float, steps: int) -> dict[str, Any]:
    """Return the cost of this call, without that of earlier, interrupted calls."""
    cost: dict[str, Any] = {"device": "CPU", "steps": steps, "seconds": round(seconds, 1)}
    if torch.cuda.is_available():
        cost["device"] = torch.cuda.get_device_name()
        cost["peak_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return cost


def write_preview(
    config: TrainingConfig, task: Task, held_out: CropDataset, step: int, accelerator: Accelerator
) -> None:
    image = draw_preview(task.network, task.texts, held_out, config.preview_zooms)
    if image:
        folder = config.out / "previews"
        folder.mkdir(exist_ok=True)
        write_whole(folder / f"step-{step:07}.png", to_png(image))
        tracker = accelerator.get_tracker("tensorboard")
        tracker.log_images({"preview": np.asarray(image)[None]}, step, dataformats="NHWC")


@contextmanager
def use_average(average: EMAModel | None, parameters: list[torch.nn.Parameter]) -> Iterator[None]:
    """Replace the parameters by their average, if there is one, for a block of code."""
    if average:
        average.store(parameters)
        average.copy_to(parameters)
    yield
    if average:
        average.restore(parameters)


def read_batches(
    config: TrainingConfig, data: CropDataset, accelerator: Accelerator, step: int
) -> Iterator[Batch]:
    """Yield the batches of this process without end, beginning after ``step``."""
    each = config.batch, accelerator.process_index, accelerator.num_processes
    in_epoch = len(list_batches(len(data), *each, config.seed, 0))
    if not in_epoch:
        raise ValueError(
            f"data: {config.data} holds {len(data)} crops to train on, fewer than batch x processes "
            f"({config.batch} x {accelerator.num_processes}): prepare more images or set a smaller batch"
        )
    loading = {"num_workers": config.workers, "pin_memory": torch.cuda.is_available()}
    epoch, first = divmod(step * config.accumulation, in_epoch)
    while True:
        data.set_epoch(epoch)
        indices = list_batches(len(data), *each, config.seed, epoch)[first:]
        yield from DataLoader(data, batch_sampler=indices, **loading)
        epoch, first = epoch + 1, 0


def list_batches(
    crops: int, batch: int, process: int, processes: int, seed: int, epoch: int
) -> list[list[int]]:
    """List the crops of each batch of a process in an epoch. Seed and epoch alone decide their order."""
    order = torch.randperm(crops, generator=make_generator(seed, 0, epoch)).tolist()
    step = batch * processes
    starts = range(process * batch, crops - step + 1 + process * batch, step)
    return [order[start : start + batch] for start in starts]


def make_generator(*seeds: int) -> torch.Generator:
    """Make a generator on the CPU, so that all devices draw the same values."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))


def stop_at(step: int, what: str, batches: list[Batch], out: Path) -> None:
    """Save the images of a step that failed, and raise a ValueError that names them."""
    folder = out / f"failed-step-{step}"
    folder.mkdir(exist_ok=True)
    for kind in ("low", "high"):
        images = torch.cat([batch[kind] for batch in batches]) / 2 + 0.5
        for i, image in enumerate(images.nan_to_num()):
            to_pillow(image[None]).save(folder / f"{i}-{kind}.png")
    names = [name for batch in batches for name in batch["name"]]
    raise ValueError(
        f"step {step}: {what} is not a finite number, with the images {', '.join(names)} (saved in "
        f"{folder}). The last checkpoint is kept. Remove broken images, or lower learning_rate"
    )
