"""Read the arms of an evaluation: the methods to compare, each with its workflow."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.host import ROOT
from tools.host.workflow import FIRST_TEMPLATE, Prompt, read_prompt

ARMS_WITHOUT_MODEL = ("nearest", "bicubic")
"""Arms without a model, which need no workflow and no seed."""

KNOWN_ARMS = (*ARMS_WITHOUT_MODEL, "onestep", "chain-null", "chain-vlm", "chain-tags")
"""The arms that need no workflow of the user's own.

nearest, bicubic: resample the window of each scale to the size of a frame
onestep: super-resolve the window of each scale once
chain-null: the chain with empty prompts
chain-vlm: the chain with the prompts of a vision-language model
chain-tags: the chain with the tags of a tagger as prompts
"""

DEFAULT_ARMS = KNOWN_ARMS[:4]

VLM_WORKFLOW = ROOT / "workflows" / "3 Chain-of-Zoom SD3 + VLM.json"


class ArmError(Exception):
    """An error whose message says in one line what is wrong with an arm or its workflow."""


@dataclass(frozen=True)
class Arm:
    name: str
    workflow: Prompt
    """A workflow in the API format with one Chain Loop."""
    keeps_texts: bool = False
    """Whether this is a workflow of the user's own (NAME=FILE.json), whose texts and prompting are kept."""


def read_arms(text: str, workflow: Path | None = None) -> list[Arm]:
    """Read the arms that ``--arms`` names, each with its workflow.

    Raises:
        ArmError: If an arm is unknown or named twice, or cannot use its workflow.
    """
    shared, arms = None, []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, own, file = (part.strip() for part in entry.partition("="))
        if name.lower() in {arm.name.lower() for arm in arms}:
            raise ArmError(f"two arms are named {name}: give each its own name")
        if own:
            if (
                name in KNOWN_ARMS
                or not re.fullmatch(r"\w[\w.-]{0,39}", name)
                or name.endswith(".")
            ):
                raise ArmError(
                    f"{name!r} cannot be the name of your arm: use up to 40 letters, digits, "
                    f"dots and dashes, and none of {', '.join(KNOWN_ARMS)}"
                )
            arms.append(Arm(name, read_workflow(Path(file)), keeps_texts=True))
            continue
        if name not in KNOWN_ARMS:
            raise ArmError(
                f"there is no arm {name!r}. Known: {', '.join(KNOWN_ARMS)}, and NAME=FILE.json for a "
                "workflow of your own"
            )
        if shared is None:
            shared = read_workflow(workflow or FIRST_TEMPLATE)
        if name == "chain-vlm" and "prompting.vlm" not in find_loop(shared)[1]:
            raise ArmError(
                f"chain-vlm needs a workflow whose Chain Loop has a vision-language model, and "
                f"{(workflow or FIRST_TEMPLATE).name} has none: add --workflow "
                f"'{VLM_WORKFLOW.relative_to(ROOT).as_posix()}'"
            )
        arms.append(Arm(name, shared))
    if not arms:
        raise ArmError(f"--arms names no arm. Known: {', '.join(KNOWN_ARMS)}")
    return arms


def read_workflow(path: Path) -> Prompt:
    """Read a workflow with one Chain Loop, as the frontend saved it or in the API format.

    Raises:
        ArmError: If there is none in ``path``.
    """
    advice = "Save it again in ComfyUI, or use File > Export (API)"
    try:
        prompt = read_prompt(path)
        loops = [node for node in prompt.values() if node["class_type"] == "CoZChainLoop"]
        if not all(isinstance(node["inputs"], dict) for node in prompt.values()):
            raise TypeError("inputs")
    except OSError as error:
        raise ArmError(f"the workflow {path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, StopIteration) as error:
        raise ArmError(f"{path} is not a workflow of ComfyUI. {advice}") from error
    if not loops:
        raise ArmError(f"{path.name} has no Chain Loop outside its subgraphs. {advice}")
    if len(loops) > 1:
        raise ArmError(f"{path.name} has {len(loops)} Chain Loops: keep only the one to evaluate")
    return prompt


def find_loop(prompt: Prompt) -> tuple[str, dict[str, Any]]:
    """Return the id and the inputs of the prompt's Chain Loop."""
    return next((k, n["inputs"]) for k, n in prompt.items() if n["class_type"] == "CoZChainLoop")
