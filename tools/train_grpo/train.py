"""Train one adapter per seed with TRL's GRPO on a data set of views, and score it before and after."""

import gc
import json
import math
import os
import time
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import set_seed
from datasets import Dataset, load_from_disk
from peft import LoraConfig
from transformers import AutoProcessor, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from .card import write_card
from .config import Config, read_config, require_known
from .critic import make_judge
from .feedback import Feedback
from .marks import measure_marks_agreement
from .trl_rewards import Scorer

LANGUAGE_LAYERS = (
    r"^(?!.*(?:visual|vision|audio|connector|projector)).*"
    r"\.(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)$"
)
"""The layers of the published adapter: those of the language model, in any naming of transformers."""

DEFAULT_TRAINING = {
    "max_steps": 1000,
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
    "gradient_accumulation_steps": 4,
    "num_generations": 8,
    "beta": 0.04,
    "learning_rate": 1e-4,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.05,
    "max_completion_length": 32,
    "temperature": 1.0,
    "logging_steps": 1,
    "save_steps": 50,
    "save_total_limit": 2,
}
"""Our defaults for GRPOConfig. Generations, beta, learning rate and schedule are those of ms-swift v3.4.0,
with which the published adapter seems to have been trained. The completion length is that of the node."""

ADAPTER = "adapter"
BEFORE, AFTER = "before.json", "after.json"
HELD_OUT_SEED = 1234


def run(path: Path) -> None:
    """Train as a config says, or continue an unfinished training.

    Raises:
        ValueError: If the config, the data, the critic or the model cannot be used.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    config = read_config(path)
    require_known(config.training, [slot.name for slot in fields(GRPOConfig)], "training.")
    train, held_out = load_pairs(config)
    if not any(
        good or bad
        for d in (train, held_out)
        for good, bad in zip(d["good"], d["bad"], strict=True)
    ):
        config.rewards["preference"] = 0.0  # no prompt is marked
    if not any(config.rewards.values()):
        raise ValueError(
            f"rewards: only preference has a weight, and {config.data} holds no marks: run "
            "prepare with --preferences, or give another reward a weight"
        )
    state = PartialState(cpu=not torch.cuda.is_available() and not _has_mps())
    is_first = state.is_main_process
    critic = make_judge(config.critic) if config.rewards["critic"] else None
    feedback = None
    if config.rewards["image_feedback"]:
        feedback = Feedback(config.feedback, path.parent)
    for seed in config.seeds:
        folder = config.out / f"seed-{seed}"
        if (folder / AFTER).is_file():
            _say(is_first, f"seed {seed} is done: {folder}")
            continue
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / f"answers-{state.process_index}.jsonl"
        train_seed(config, seed, folder, train, held_out, Scorer(config, critic, feedback, log))
        gc.collect()  # the trainer and its callbacks are a reference cycle that keeps the model in memory
    if is_first:
        adapter = write_card(config, len(train))
        _say(True, f"adapter for CoZ Load Prompt Extractor: {adapter}")


def load_pairs(config: Config) -> tuple[Dataset, Dataset]:
    """Load the pairs to train on, and ``config.held_out`` of the held-out pairs, evenly chosen.

    All held-out pairs with marks are kept.

    Raises:
        ValueError: If there is no data set.
    """
    try:
        whole = load_from_disk(str(config.data / "data"))
        train = whole["train"]
    except (OSError, KeyError) as error:
        raise ValueError(
            f"data: {config.data} holds no data set: python -m tools.train_grpo prepare IMAGES "
            f"{config.data}"
        ) from error
    held_out = whole["held_out"] if "held_out" in whole else train.select([])
    marked = [i for i, good in enumerate(held_out["good"]) if good or held_out["bad"][i]]
    plain = sorted(set(range(len(held_out))) - set(marked))
    step = max(1, math.ceil(len(plain) / max(1, config.held_out)))
    return train, held_out.select(sorted(marked + plain[::step] if config.held_out else marked))


def train_seed(
    config: Config, seed: int, folder: Path, train: Dataset, held_out: Dataset, scorer: Scorer
) -> None:
    trainer = make_trainer(config, seed, folder, train, held_out, scorer)
    is_first = trainer.is_world_process_zero()
    checkpoint = find_last_checkpoint(folder)
    if checkpoint:
        step = int(checkpoint.name.rpartition("-")[2])
        _say(is_first, f"seed {seed}: continues after step {step}")
    trainer.add_callback(ScoreBefore(trainer, scorer, folder / BEFORE, seed))
    pace = PaceReport()
    trainer.add_callback(pace)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.perf_counter() - pace.start
    trainer.save_model(str(folder / ADAPTER))
    cost = measure_costs(trainer, seconds, trainer.state.num_input_tokens_seen - pace.tokens)
    scores = score_held_out(trainer, scorer, "after")
    if is_first:
        history = [entry for entry in trainer.state.log_history if "reward" in entry]
        _write(folder / "history.json", history)
        _write(folder / AFTER, scores | {"cost": cost, "steps": trainer.state.global_step})


def make_trainer(
    config: Config, seed: int, folder: Path, train: Dataset, held_out: Dataset, scorer: Scorer
) -> GRPOTrainer:
    has_gpu = torch.cuda.is_available()
    bf16 = has_gpu and torch.cuda.is_bf16_supported()
    options = (
        DEFAULT_TRAINING
        | {"bf16": bf16, "use_cpu": not has_gpu and not _has_mps()}
        | config.training
    )
    options.setdefault("model_init_kwargs", {"dtype": "bfloat16" if bf16 else "float32"})
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / "tensorboard")
    try:
        args = GRPOConfig(
            output_dir=str(folder),
            seed=seed,
            reward_weights=list(scorer.weights.values()),
            report_to=["tensorboard"],
            **options,
        )
        processor = AutoProcessor.from_pretrained(config.model, padding_side="left")
        return GRPOTrainer(
            model=config.model,
            reward_funcs=scorer.functions,
            args=args,
            train_dataset=train,
            eval_dataset=held_out,
            processing_class=processor,
            peft_config=LoraConfig(
                r=config.lora.r,
                lora_alpha=config.lora.alpha,
                lora_dropout=config.lora.dropout,
                target_modules=LANGUAGE_LAYERS,
                bias="none",
                task_type="CAUSAL_LM",
            ),
        )
    except ImportError as error:  # such as vllm
        raise ValueError(
            f"{error}: install it in .venv-train, or remove the setting that needs it"
        ) from error
    except OSError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"model {config.model} cannot be loaded: {reason}") from error


class ScoreBefore(TrainerCallback):
    """Score the held-out pairs when training begins; earlier, FSDP has not distributed the model yet."""

    def __init__(self, trainer: GRPOTrainer, scorer: Scorer, path: Path, seed: int) -> None:
        self.trainer, self.scorer, self.path, self.seed = trainer, scorer, path, seed

    def on_train_begin(self, args, state, control, **kwargs):
        if not self.path.is_file():
            scores = score_held_out(self.trainer, self.scorer, "before")
            self.trainer.accelerator.wait_for_everyone()  # until all have checked that the file does not exist
            if state.is_world_process_zero:
                _write(self.path, scores)
        # With the same seed, all processes would sample the same answers to the same pair.
        set_seed(self.seed, device_specific=True)
        self.scorer.phase = "train"


class PaceReport(TrainerCallback):
    """Print after the first steps how long the rest will take, if there is no GPU."""

    MEASURED_STEPS = 2

    def __init__(self) -> None:
        self.start, self.first, self.tokens = 0.0, 0, 0

    def on_train_begin(self, args, state, control, **kwargs):
        if not torch.cuda.is_available():
            _say(state.is_world_process_zero, "There is no GPU here, so this will be slow.")
        self.start, self.first = time.perf_counter(), state.global_step
        self.tokens = state.num_input_tokens_seen

    def on_step_end(self, args, state, control, **kwargs):
        if not torch.cuda.is_available() and state.global_step - self.first == self.MEASURED_STEPS:
            seconds = (time.perf_counter() - self.start) / self.MEASURED_STEPS
            left = state.max_steps - state.global_step
            minutes = seconds * left / 60
            rest = f"{minutes / 60:.1f} hours" if minutes > 90 else f"{math.ceil(minutes)} min"
            line = f"No GPU: {seconds:.1f} s per step, about {rest} for the other {left} steps of this seed."
            _say(state.is_world_process_zero, line)


def score_held_out(trainer: GRPOTrainer, scorer: Scorer, phase: str) -> dict[str, Any]:
    """Compute the mean of each reward over the held-out pairs, and the agreement with people's marks."""
    held_out = trainer.eval_dataset
    if not len(held_out):
        return {}
    scorer.phase = phase
    set_seed(HELD_OUT_SEED, device_specific=True)
    trainer.evaluate()
    log = trainer.state.log_history[-1]
    names = {f"eval_rewards/{name}/mean": name for name in scorer.weights}
    scores: dict[str, Any] = {names[key]: log[key] for key in log if key in names}
    scores |= {"reward": log.get("eval_reward"), "pairs": len(held_out)}
    agreement = measure_marks_agreement(trainer, held_out)
    return scores | ({} if agreement is None else {"marks_agreement": agreement})


def measure_costs(trainer: GRPOTrainer, seconds: float, tokens: int) -> dict[str, Any]:
    """Return the measured cost of this call, without that of earlier, interrupted calls."""
    cost: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "processes": trainer.accelerator.num_processes,
        "distribution": trainer.accelerator.distributed_type.value,
        "seconds": round(seconds, 1),
        "tokens": tokens,
        "tokens_per_second": round(tokens / seconds, 1),
    }
    if torch.cuda.is_available():
        cost["peak_memory_gb"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return cost


def find_last_checkpoint(folder: Path) -> Path | None:
    """Find the newest complete checkpoint; a run may have been killed while it wrote one."""
    numbers = [
        int(path.name.partition("-")[2])
        for path in folder.glob("checkpoint-*")
        if path.name.partition("-")[2].isdigit()
    ]
    for number in sorted(numbers, reverse=True):
        checkpoint = folder / f"checkpoint-{number}"
        try:
            state = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if state.get("global_step") == number:
            return checkpoint
    return None


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


def _write(path: Path, content: Any) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    new.replace(path)


def _say(is_first: bool, line: str) -> None:
    if is_first:
        print(line, flush=True)
