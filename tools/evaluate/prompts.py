"""Make the ComfyUI prompts that run an arm of an evaluation on an image."""

from typing import Any

from coz.chain.zoom_chain import derive_step_seed
from coz.color.align import WAVELET_LEVELS
from tools.host import ROOT
from tools.host.workflow import Prompt, read_prompt

from .arms import ARMS_WITHOUT_MODEL, Arm, ArmError, find_loop
from .job import FRAMES_PREFIX, KEY_PLACEHOLDER, MIDDLE, PICTURE_PLACEHOLDER

SCALE = 4.0

MAX_SCALE = 64
"""Maximum of Crop-Center-Zoom's ``scale`` widget; a linked value may be larger."""

T5_TOKENS = 512
"""Number of T5 tokens with which Chain Loop encodes its texts: nodes/step/encode_prompt.py."""

TAGS_WORKFLOW = ROOT / "workflows" / "more" / "Chain-of-Zoom SD3 + tags.json"

INVERSION = "diffusion inversion (InvSR)"
BACKBONES = ("upscale model", "one-step diffusion", "any checkpoint", INVERSION)


def make_prompts(arm: Arm, side: int, steps: int, seed: int) -> tuple[Prompt, ...]:
    """Make the prompts of an arm for an image of side x side pixels.

    Raises:
        ArmError: If the arm cannot use its workflow.
    """
    if arm.name in ARMS_WITHOUT_MODEL:
        return (make_resampled_prompt(arm.name, steps),)
    if arm.name == "onestep":
        try:
            return (make_one_step_prompt(arm.workflow, steps, seed),)
        except KeyError as error:
            raise ArmError(f"the workflow's Chain Loop has no {error}: save it again") from error
    return (make_chain_prompt(arm, side, steps, seed),)


def make_chain_prompt(arm: Arm, side: int, steps: int, seed: int) -> Prompt:
    """Set the workflow's Chain Loop to the paper's protocol, and keep only the nodes that it needs."""
    loop, inputs = find_loop(arm.workflow)
    inputs = {key: value for key, value in inputs.items() if key not in {"mask", "chain"}}
    inputs |= {
        "image": ["coz_picture", 0],
        "steps": steps,
        "scale": SCALE,
        "center_x": MIDDLE.x,
        "center_y": MIDDLE.y,
        "frame": "whole picture square",
        "size": side,
        "seed": seed,
        "stop_below": 0.0,
    }
    if not arm.keeps_texts:
        # The workflow's text was written for another image.
        inputs |= {"prompt": "", "step_prompts": ""}
    prompting, tagger = choose_prompting(arm, inputs)
    inputs = {key: value for key, value in inputs.items() if not key.startswith("prompting")}
    inputs |= prompting
    prompt = arm.workflow | {loop: {"class_type": "CoZChainLoop", "inputs": inputs}, **make_input()}
    return keep_needed_nodes(prompt | tagger | make_save("scales", [loop, 1]))


def choose_prompting(arm: Arm, inputs: dict[str, Any]) -> tuple[dict[str, Any], Prompt]:
    """Return the inputs of ``prompting`` for an arm, and the node that loads its tagger, if it needs one.

    The tagger is that of the workflow, whether it is linked or not, or otherwise RAM with DAPE as in the
    bundled workflow.
    """
    if arm.name == "chain-null":
        return {"prompting": "text"}, {}
    if arm.name == "chain-tags" and "prompting.tagger" not in inputs:
        nodes = [*arm.workflow.values(), *read_prompt(TAGS_WORKFLOW).values()]
        loader = next(node for node in nodes if node["class_type"] == "CoZLoadTagger")
        chosen = {"prompting.tagger": ["coz_tagger", 0], "prompting.exclude": ""}
        return {"prompting": "tags (RAM/DAPE)", **chosen}, {"coz_tagger": loader}
    return {key: value for key, value in inputs.items() if key.startswith("prompting")}, {}


def make_resampled_prompt(resampling: str, steps: int) -> Prompt:
    """Enlarge the image's window of each scale by resampling."""
    prompt = make_input()
    for k in range(1, steps + 1):
        prompt |= make_zoom(k, resampling) | make_save(k, [f"coz_zoom_{k}", 0])
    return prompt


def make_one_step_prompt(workflow: Prompt, steps: int, seed: int) -> Prompt:
    """Super-resolve the image's window of each scale once, with the nodes of Chain Loop."""
    _, loop = find_loop(workflow)
    kind = loop["backbone"]
    if kind not in BACKBONES:
        raise ArmError(
            f"onestep does not support the backbone {kind!r}, only {', '.join(BACKBONES)}"
        )
    backbone_inputs = {
        key.removeprefix("backbone."): value
        for key, value in loop.items()
        if key.startswith("backbone.")
    }
    prompt = workflow | make_input()
    if kind != "upscale model":
        prompt |= make_texts(kind, backbone_inputs)
    for k in range(1, steps + 1):
        prompt |= make_zoom(k, "bicubic") | make_node(
            f"coz_sr_{k}", **make_step(kind, backbone_inputs, k, seed)
        )
        image = [f"coz_sr_{k}", 0]
        if loop.get("color_fix", "none") != "none":
            fix = {"method": loop["color_fix"], "levels": WAVELET_LEVELS}
            inputs = {"image": image, "reference": [f"coz_zoom_{k}", 0]}
            prompt |= make_node(f"coz_fix_{k}", "CoZColorFix", **inputs, **fix)
            image = [f"coz_fix_{k}", 0]
        if loop.get("consistency", 0) != 0:
            inputs = {"image": image, "crop": [f"coz_zoom_{k}", 1], "zoomed": [f"coz_zoom_{k}", 0]}
            prompt |= make_node(
                f"coz_check_{k}", "CoZChainCheck", **inputs, strength=loop["consistency"]
            )
            image = [f"coz_check_{k}", 0]
        prompt |= make_save(k, image)
    return keep_needed_nodes(prompt)


def make_texts(kind: str, backbone_inputs: dict[str, Any]) -> Prompt:
    """Make the nodes that encode a diffusion model's texts: an empty one, and the negative one."""
    if kind == "one-step diffusion":
        inputs = {"clip": backbone_inputs["clip"], "prompt": "", "t5_tokens": T5_TOKENS}
        return make_node("coz_text", "CoZEncodePrompt", **inputs)
    negative = {"clip": backbone_inputs["clip"], "text": backbone_inputs["negative"]}
    return make_node(
        "coz_text", "CLIPTextEncode", clip=backbone_inputs["clip"], text=""
    ) | make_node("coz_negative", "CLIPTextEncode", **negative)


def make_step(kind: str, backbone_inputs: dict[str, Any], k: int, seed: int) -> dict[str, Any]:
    """Return the inputs of a step's node, as nodes/backbones sets them, with its class_type."""
    zoomed = [f"coz_zoom_{k}", 0]
    if kind == "upscale model":
        return {
            "class_type": "CoZUpscaleStep",
            "upscale_model": backbone_inputs["upscale_model"],
            "crop": [f"coz_zoom_{k}", 1],
            "zoomed": zoomed,
            "resampling": backbone_inputs["resampling"],
            "image": ["coz_picture", 0],
            "window": [f"coz_zoom_{k}", 2],
        }
    inputs = {"model": backbone_inputs["model"], "vae": backbone_inputs["vae"], "image": zoomed}
    inputs["positive"] = ["coz_text", 0]
    if kind == "one-step diffusion":
        return {
            "class_type": "CoZSRStep",
            **inputs,
            "latent_shift": backbone_inputs["latent_shift"],
        }
    if kind == INVERSION:
        del inputs["image"]
        return {
            "class_type": "CoZInvSRStep",
            **inputs,
            "negative": ["coz_negative", 0],
            "crop": [f"coz_zoom_{k}", 1],
            "zoomed": zoomed,
            **{key: backbone_inputs[key] for key in ("sampling_steps", "start", "cfg", "adaptive")},
            "seed": derive_step_seed(seed, k),
        }
    sampling = {
        key: backbone_inputs[key] for key in ("cfg", "sampler_name", "scheduler", "denoise")
    }
    return {
        "class_type": "CoZRefineStep",
        **inputs,
        "negative": ["coz_negative", 0],
        "steps": backbone_inputs["sampling_steps"],
        **sampling,
        "seed": derive_step_seed(seed, k),
        "adaptive": backbone_inputs.get("adaptive", False),
    }


def make_node(node_id: str, class_type: str, **inputs: Any) -> Prompt:
    return {node_id: {"class_type": class_type, "inputs": inputs}}


def make_input() -> Prompt:
    return make_node("coz_picture", "LoadImage", image=PICTURE_PLACEHOLDER)


def make_zoom(k: int, resampling: str) -> Prompt:
    """Make the node that crops the image's middle at scale 4^k and enlarges it."""
    factor = SCALE**k
    prompt, scale = {}, factor
    if factor > MAX_SCALE:
        prompt = make_node(f"coz_factor_{k}", "PrimitiveFloat", value=factor)
        scale = [f"coz_factor_{k}", 0]
    return prompt | make_node(
        f"coz_zoom_{k}",
        "CoZCropCenterZoom",
        image=["coz_picture", 0],
        scale=scale,
        center_x=MIDDLE.x,
        center_y=MIDDLE.y,
        resampling=resampling,
    )


def make_save(name: str | int, images: list) -> Prompt:
    """Make the node that saves frames in 16 bits.

    In 8 bits ComfyUI truncates instead of rounding, which would change the scores.
    """
    inputs = {"images": images, "filename_prefix": KEY_PLACEHOLDER, "format": "png"}
    inputs |= {"format.bit_depth": "16-bit", "format.input_color_space": "sRGB"}
    return make_node(f"{FRAMES_PREFIX}_{name}", "SaveImageAdvanced", **inputs)


def keep_needed_nodes(prompt: Prompt) -> Prompt:
    """Keep the nodes that save frames, and those that they depend on."""
    kept, waiting = [], [name for name in prompt if name.startswith(FRAMES_PREFIX)]
    while waiting:
        name = waiting.pop()
        if name in kept or name not in prompt:
            continue
        kept.append(name)
        for value in prompt[name]["inputs"].values():
            if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str):
                waiting.append(value[0])
    return {name: prompt[name] for name in prompt if name in kept}
