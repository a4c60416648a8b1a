"""Read the config of a training run, a YAML file whose keys and values pydantic checks."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from coz.text.answer import EXCLUDED_PHRASES

from .rewards import FEEDBACK_SPREAD, MIN_WORDS, NGRAM_WORDS, WEIGHTS

CRITIC_INSTRUCTION = (
    "You see two images; the second is a zoom-in of the first. Somebody described the second image in "
    "words, for a model that will sharpen it. Good words name what is really there: objects, "
    "materials, textures. They fit what the first image tells about the place. Words that could stand "
    "for any picture, that guess what cannot be seen, or that are wrong, are bad. How good are the "
    "words? Answer with one whole number from 0 (useless) to 100 (perfect) and nothing else."
)
"""Our own instruction: the paper's is not public."""

PositiveInt = Annotated[int, Field(ge=1)]
ConfigPath = Annotated[Path, Field(strict=False)]  # YAML has no type for paths


def require_known(given: Iterable[str], known: Iterable[str], place: str = "") -> None:
    """Raise a ValueError for the first unknown key. The message suggests a similar one."""
    known = list(known)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
            raise ValueError(f"{place}{name} does not exist in a config: {meant}")


class Section(BaseModel, strict=True, frozen=True):
    """A section of the file. An unknown key raises an error that names it."""

    @model_validator(mode="before")
    @classmethod
    def _reject_unknown_keys(cls, given: Any) -> Any:
        if isinstance(given, dict):
            require_known(given, cls.model_fields)
        return given


class Critic(Section):
    """A second vision-language model that scores answers, on a server or in this process."""

    model: str = ""
    """The server's name of the model; without a url, the name or folder of a transformers model."""
    url: str = ""
    """URL of an OpenAI-compatible server, ending in /v1."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the API key, if the server needs one."""
    instruction: str = CRITIC_INSTRUCTION
    max_tokens: PositiveInt = 16
    timeout: float = 120.0
    """Seconds to wait for an answer."""
    tries: PositiveInt = 5
    """Tries of a request; the pause between them starts at one second and doubles."""
    at_once: PositiveInt = 16
    """Number of simultaneous requests; for a local model the batch size."""
    patience: PositiveInt = 5
    """The run stops after this many batches in a row without any readable score."""


class Feedback(Section):
    """The reward for how an answer changes the image that a ComfyUI makes with it."""

    url: str = "http://127.0.0.1:8188"
    workflow: str = ""
    """A workflow in the API format, with "{image}" for the zoomed view's file and "{prompt}" for the text."""
    quality: str = "musiq"
    """A metric of pyiqa, which must be installed, or a module:function that takes an image."""
    spread: Annotated[float, Field(gt=0)] = FEEDBACK_SPREAD
    """The gain, in units of the quality, for which the reward is tanh(1) = 0.76."""


class Lora(Section):
    """Settings of the LoRA, by default as in the published adapter. The vision tower is not trained."""

    r: int = 8
    alpha: int = 32
    dropout: float = 0.05


class Config(Section):
    """The whole config of a run."""

    data: ConfigPath
    """The folder that `prepare` made."""
    out: ConfigPath
    model: str = "Qwen/Qwen2.5-VL-3B-Instruct"
    """The name of a model on Hugging Face or a folder with one."""
    seeds: list[int] = [0, 1, 2]
    """Seeds of the trainings, one after another. Short runs vary, so fewer than three seeds prove little."""
    held_out: Annotated[int, Field(ge=0)] = 64
    """Number of pairs that are scored before and after training."""
    critic: Critic = Critic()
    feedback: Feedback = Feedback()
    rewards: dict[str, float] = dict(WEIGHTS)
    """Reward -> its weight. A reward of weight 0 is not computed."""
    phrases: list[str] = list(EXCLUDED_PHRASES)
    ngram: PositiveInt = NGRAM_WORDS
    least_words: Annotated[int, Field(ge=0)] = MIN_WORDS
    lora: Lora = Lora()
    training: dict[str, Any] = {}
    """Arguments of TRL's GRPOConfig."""

    @field_validator("rewards")
    @classmethod
    def _add_default_weights(cls, given: dict[str, float]) -> dict[str, float]:
        weights = cls.model_fields["rewards"].default
        require_known(given, weights)
        return weights | given

    @model_validator(mode="after")
    def _require_consistent(self) -> "Config":
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be different numbers, at least one, got {self.seeds}")
        if self.rewards["critic"] and not self.critic.model:
            raise ValueError("critic.model is missing: name one, or set rewards.critic to 0")
        if self.rewards["image_feedback"] and not self.feedback.workflow:
            raise ValueError("feedback.workflow is missing, but rewards.image_feedback needs it")
        if not any(self.rewards.values()):
            raise ValueError("rewards: all weights are 0, so there is nothing to learn")
        own = {"output_dir", "seed", "reward_weights", "report_to"} & self.training.keys()
        if own:
            raise ValueError(
                f"training.{min(own)} is set from the rest of the config: leave it out"
            )
        if "hub_token" in self.training:
            raise ValueError(
                "training.hub_token would be saved in the run's files: use `hf auth login` instead"
            )
        return self


class Loader(yaml.SafeLoader):
    """Reads 1e-5 as a number. YAML 1.1 would read it as a text and only 1.0e-5 as a number."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+\.?\d*[eE][-+]?\d+$"), list("-+0123456789")
)


S = TypeVar("S", bound=Section)


def read_config(path: Path, kind: type[S] = Config) -> S:
    """Read the config from a YAML file; its relative paths start at the file's folder.

    Raises:
        ValueError: If the file is missing or holds an unknown key or a wrong value.
    """
    try:
        config = kind.model_validate(yaml.load(path.read_text("utf-8"), Loader))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise ValueError(_explain(**error.errors()[0])) from error
    paths = {name: path.parent / value for name, value in config if isinstance(value, Path)}
    for name in {"model", "vlm"} & kind.model_fields.keys():  # a name on Hugging Face, or a folder
        folder = path.parent / getattr(config, name)
        if folder.is_dir() and folder != path.parent:
            paths[name] = str(folder)
    return config.model_copy(update=paths)


def _explain(type: str, loc: tuple, msg: str, input: Any, **_: Any) -> str:
    """Describe pydantic's error in one line that starts with the key."""
    place = ".".join(map(str, loc))
    if type == "missing":
        return (
            f"{place} is missing. A config needs at least data (the folder that prepare made) and out (the "
            "folder to write to)"
        )
    if type == "value_error":
        return ".".join(filter(None, (place, msg.removeprefix("Value error, "))))
    problem = msg.removeprefix("Input ").replace("should be", "must be").partition(" for <")[0]
    return f"{place or 'the config'} {problem}, got {input!r}"
