"""What a training run is told: a YAML file, each key of it checked."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import yaml

from coz.answer import EXCLUDED_PHRASES

from .rewards import FEEDBACK_SPREAD, LEAST_WORDS, NGRAM, WEIGHTS

CRITIC_INSTRUCTION = (
    "You see two images; the second is a zoom-in of the first. Somebody described the second image in "
    "words, for a model that will sharpen it. Good words name what is really there: objects, "
    "materials, textures. They fit what the first image tells about the place. Words that could stand "
    "for any picture, that guess what cannot be seen, or that are wrong, are bad. How good are the "
    "words? Answer with one whole number from 0 (useless) to 100 (perfect) and nothing else."
)
"""Ours: the paper's is not public."""


@dataclass(frozen=True)
class Critic:
    """The second vision-language model: a server or a folder."""

    model: str = ""
    """As the server names it; without a url a model of transformers, its name or folder."""
    url: str = ""
    """Of any OpenAI-compatible server, up to /v1."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the key, where one is needed."""
    instruction: str = CRITIC_INSTRUCTION
    max_tokens: int = 16
    timeout: float = 120.0
    """Seconds for an answer."""
    tries: int = 5
    """Of a request; the waits between them double from one second."""
    at_once: int = 16
    """Requests in flight; for a local model the answers made together."""
    patience: int = 5
    """Batches without a single readable score before the run stops."""


@dataclass(frozen=True)
class Feedback:
    """What the words do to the picture, as a ComfyUI shows it."""

    url: str = "http://127.0.0.1:8188"
    workflow: str = ""
    """API format; "{image}" in it stands for the zoomed view's file, "{prompt}" for the words."""
    quality: str = "musiq"
    """A measure of pyiqa, which is to be installed then, or module:function of a picture."""
    spread: float = FEEDBACK_SPREAD
    """A gain of so many units of it is worth 0.76."""


@dataclass(frozen=True)
class Lora:
    """As the published adapter has it; the language model alone, its eyes stay as they are."""

    r: int = 8
    alpha: int = 32
    dropout: float = 0.05


@dataclass(frozen=True)
class Config:
    """All of a run."""

    data: Path
    """What `prepare` made."""
    out: Path
    model: str = "Qwen/Qwen2.5-VL-3B-Instruct"
    """The name of a model on Hugging Face or a folder with one."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    """One after another. Short runs turn out differently with each: fewer than three say little."""
    held_out: int = 64
    """Pairs that are scored before and after."""
    critic: Critic = field(default_factory=Critic)
    feedback: Feedback = field(default_factory=Feedback)
    rewards: dict[str, float] = field(default_factory=lambda: {**WEIGHTS, "image_feedback": 0.0})
    """Weight of each; what weighs 0 is not asked."""
    phrases: list[str] = field(default_factory=lambda: list(EXCLUDED_PHRASES))
    ngram: int = NGRAM
    least_words: int = LEAST_WORDS
    lora: Lora = field(default_factory=Lora)
    training: dict[str, Any] = field(default_factory=dict)
    """Anything that GRPOConfig of TRL takes."""


class Loader(yaml.SafeLoader):
    """Takes 1e-5 for a number; YAML 1.1 asks for 1.0e-5 and reads a text."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+\.?\d*[eE][-+]?\d+$"), list("-+0123456789")
)


def read_config(path: Path) -> Config:
    """The config in a YAML file; its folders are seen from there.

    Raises:
        ValueError: If there is no such file, a key that does not exist, or a value that cannot be.
    """
    try:
        told = yaml.load(path.read_text("utf-8"), Loader)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    config = _filled(Config, told, "")
    for name in ("data", "out"):
        object.__setattr__(config, name, path.parent / getattr(config, name))
    weights = {**Config(data=path, out=path).rewards}
    require_known(config.rewards, weights, "rewards.")
    object.__setattr__(config, "rewards", weights | config.rewards)
    _check(config)
    return config


def require_known(told: Iterable[str], known: Iterable[str], place: str) -> None:
    """Name the first key that does not exist, and the one that was meant."""
    known = list(known)
    for name in told:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
            raise ValueError(f"{place}{name} does not exist in a config: {meant}")


def _filled(kind: type, told: Any, place: str):
    if not isinstance(told, dict):
        raise ValueError(
            f"{place.rstrip('.') or 'the config'} must be keys and values, got {told!r}"
        )
    slots = {slot.name: slot for slot in fields(kind)}
    require_known(told, slots, place)
    for name in ("data", "out"):
        if name in slots and name not in told:
            raise ValueError(f"{place}{name} is missing: the folder of prepare, or the one to make")
    return kind(**{n: _value(slots[n].type, value, f"{place}{n}") for n, value in told.items()})


def _value(kind: Any, value: Any, name: str) -> Any:
    if hasattr(kind, "__dataclass_fields__"):
        return _filled(kind, value, f"{name}.")
    if get_origin(kind) is list:
        (item,) = get_args(kind)
        if isinstance(value, list):
            return [_value(item, part, name) for part in value]
    elif get_origin(kind) is dict:
        if isinstance(value, dict):
            part = get_args(kind)[1]
            return {
                k: v if part is Any else _value(part, v, f"{name}.{k}") for k, v in value.items()
            }
    elif kind is Path and isinstance(value, str):
        return Path(value)
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(kind, type | UnionType) and isinstance(value, kind) and type(value) is not bool:
        return value
    raise ValueError(f"{name} must be {_named(kind)}, got {value!r}")


def _named(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a text", Path: "a path"}
    if get_origin(kind) is list:
        return f"a list, each {_named(get_args(kind)[0])}"
    return "keys and values" if get_origin(kind) is dict else names[kind]


def _check(config: Config) -> None:
    if not config.seeds or len(set(config.seeds)) < len(config.seeds):
        raise ValueError(f"seeds must be different numbers, at least one, got {config.seeds}")
    for name, least in (("held_out", 0), ("ngram", 1), ("least_words", 0)):
        if getattr(config, name) < least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(config, name)}")
    for name in ("at_once", "tries", "max_tokens", "patience"):
        if getattr(config.critic, name) < 1:
            raise ValueError(
                f"critic.{name} must be at least 1, got {getattr(config.critic, name)}"
            )
    if config.rewards["critic"] and not config.critic.model:
        raise ValueError("critic.model is missing: name one, or give rewards.critic the weight 0")
    if config.rewards["image_feedback"] and not config.feedback.workflow:
        raise ValueError("feedback.workflow is missing: image_feedback has a weight")
    if not any(config.rewards.values()):
        raise ValueError("rewards: all have the weight 0, so there is nothing to learn")
    if own := {"output_dir", "seed", "reward_weights", "report_to"} & config.training.keys():
        raise ValueError(f"training.{min(own)} follows from the rest of the config: leave it out")
    if "hub_token" in config.training:
        raise ValueError(
            "training.hub_token would stand in files of the run: `hf auth login` instead"
        )
