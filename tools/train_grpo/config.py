"""The config of a training run: a YAML file, each key of it checked by pydantic."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from coz.text.answer import EXCLUDED_PHRASES

from .rewards import FEEDBACK_SPREAD, LEAST_WORDS, NGRAM, WEIGHTS

CRITIC_INSTRUCTION = (
    "You see two images; the second is a zoom-in of the first. Somebody described the second image in "
    "words, for a model that will sharpen it. Good words name what is really there: objects, "
    "materials, textures. They fit what the first image tells about the place. Words that could stand "
    "for any picture, that guess what cannot be seen, or that are wrong, are bad. How good are the "
    "words? Answer with one whole number from 0 (useless) to 100 (perfect) and nothing else."
)
"""Ours: the paper's is not public."""

Count = Annotated[int, Field(ge=1)]
Folder = Annotated[Path, Field(strict=False)]  # YAML has no paths


def require_known(given: Iterable[str], known: Iterable[str], place: str = "") -> None:
    """Name the first key that does not exist, and the one that was meant."""
    known = list(known)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
            raise ValueError(f"{place}{name} does not exist in a config: {meant}")


class Section(BaseModel, strict=True, frozen=True):
    """Keys and values of the file. A key that does not exist is an error that names it."""

    @model_validator(mode="before")
    @classmethod
    def _know_keys(cls, given: Any) -> Any:
        if isinstance(given, dict):
            require_known(given, cls.model_fields)
        return given


class Critic(Section):
    """The second vision-language model: a server or a folder."""

    model: str = ""
    """As the server names it; without a url a model of transformers, its name or folder."""
    url: str = ""
    """Of any OpenAI-compatible server, up to /v1."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the key, where one is needed."""
    instruction: str = CRITIC_INSTRUCTION
    max_tokens: Count = 16
    timeout: float = 120.0
    """Seconds for an answer."""
    tries: Count = 5
    """Of a request; the waits between them double from one second."""
    at_once: Count = 16
    """Requests in flight; for a local model the answers made together."""
    patience: Count = 5
    """Batches without a single readable score before the run stops."""


class Feedback(Section):
    """What the words do to the picture, as a ComfyUI shows it."""

    url: str = "http://127.0.0.1:8188"
    workflow: str = ""
    """API format; "{image}" in it stands for the zoomed view's file, "{prompt}" for the words."""
    quality: str = "musiq"
    """A measure of pyiqa, which is to be installed then, or module:function of a picture."""
    spread: Annotated[float, Field(gt=0)] = FEEDBACK_SPREAD
    """A gain of so many units of it is worth 0.76."""


class Lora(Section):
    """As the published adapter has it; the language model alone, its vision tower is not trained."""

    r: int = 8
    alpha: int = 32
    dropout: float = 0.05


class Config(Section):
    """Everything that decides a run."""

    data: Folder
    """What `prepare` made."""
    out: Folder
    model: str = "Qwen/Qwen2.5-VL-3B-Instruct"
    """The name of a model on Hugging Face or a folder with one."""
    seeds: list[int] = [0, 1, 2]
    """One after another. Short runs turn out differently with each: fewer than three say little."""
    held_out: Annotated[int, Field(ge=0)] = 64
    """Pairs that are scored before and after."""
    critic: Critic = Critic()
    feedback: Feedback = Feedback()
    rewards: dict[str, float] = {**WEIGHTS, "image_feedback": 0.0}
    """Weight of each; what weighs 0 is not asked."""
    phrases: list[str] = list(EXCLUDED_PHRASES)
    ngram: Count = NGRAM
    least_words: Annotated[int, Field(ge=0)] = LEAST_WORDS
    lora: Lora = Lora()
    training: dict[str, Any] = {}
    """Anything that GRPOConfig of TRL takes."""

    @field_validator("rewards")
    @classmethod
    def _complete(cls, given: dict[str, float]) -> dict[str, float]:
        weights = cls.model_fields["rewards"].default
        require_known(given, weights)
        return weights | given

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be different numbers, at least one, got {self.seeds}")
        if self.rewards["critic"] and not self.critic.model:
            raise ValueError(
                "critic.model is missing: name one, or give rewards.critic the weight 0"
            )
        if self.rewards["image_feedback"] and not self.feedback.workflow:
            raise ValueError("feedback.workflow is missing: image_feedback has a weight")
        if not any(self.rewards.values()):
            raise ValueError("rewards: all have the weight 0, so there is nothing to learn")
        own = {"output_dir", "seed", "reward_weights", "report_to"} & self.training.keys()
        if own:
            raise ValueError(
                f"training.{min(own)} follows from the rest of the config: leave it out"
            )
        if "hub_token" in self.training:
            raise ValueError(
                "training.hub_token would stand in files of the run: `hf auth login` instead"
            )
        return self


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
        config = Config.model_validate(yaml.load(path.read_text("utf-8"), Loader))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise ValueError(_explain(**error.errors()[0])) from error
    folders = {name: path.parent / getattr(config, name) for name in ("data", "out")}
    return config.model_copy(update=folders)


def _explain(type: str, loc: tuple, msg: str, input: Any, **_: Any) -> str:
    """What pydantic found, in one line that starts with the key."""
    place = ".".join(map(str, loc))
    if type == "missing":
        return f"{place} is missing: the folder of prepare, or the one to make"
    if type == "value_error":
        return ".".join(filter(None, (place, msg.removeprefix("Value error, "))))
    problem = msg.removeprefix("Input ").replace("should be", "must be").partition(" for <")[0]
    return f"{place or 'the config'} {problem}, got {input!r}"
