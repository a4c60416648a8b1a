"""What each arm of an evaluation makes of a picture, as prompts for the host."""

from typing import Any

from coz.chain.zoom_chain import derive_step_seed
from coz.color.align import WAVELET_LEVELS
from tools.host.workflow import Prompt

from .arms import ENLARGED, Arm, ArmError, loop_of
from .job import FRAMES, KEY, MIDDLE, PICTURE

SCALE = 4.0

MOST_SCALE = 64
"""Greatest constant that Crop-Center-Zoom's ``scale`` takes; a link may bring more."""

T5_TOKENS = 512
"""As Chain Loop encodes its texts: nodes/step/encode_prompt.py."""

BACKBONES = ("upscale model", "one-step diffusion", "any checkpoint")


def prompts_of(arm: Arm, side: int, steps: int, seed: int) -> tuple[Prompt, ...]:
    """What the arm runs on a picture of side x side pixels.

    Raises:
        ArmError: If its workflow cannot be used for it.
    """
    if arm.name in ENLARGED:
        return (enlarged_prompt(arm.name, steps),)
    if arm.name == "onestep":
        try:
            return (one_step_prompt(arm.workflow, steps, seed),)
        except KeyError as error:
            raise ArmError(f"the workflow's Chain Loop has no {error}: save it anew") from error
    return (chain_prompt(arm, side, steps, seed),)


def chain_prompt(arm: Arm, side: int, steps: int, seed: int) -> Prompt:
    """The workflow's Chain Loop by the paper's protocol, with only what it needs."""
    loop, inputs = loop_of(arm.workflow)
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
    if not arm.own:
        # A text in the workflow was written for its own picture.
        inputs |= {"prompt": "", "step_prompts": ""}
    if arm.name == "chain-null":
        inputs = {key: value for key, value in inputs.items() if not key.startswith("prompting.")}
        inputs["prompting"] = "text"
    prompt = arm.workflow | {loop: {"class_type": "CoZChainLoop", "inputs": inputs}, **picture()}
    return needed(prompt | save("scales", [loop, 1]))


def enlarged_prompt(resampling: str, steps: int) -> Prompt:
    """The picture's window for each scale, resized at once."""
    prompt = picture()
    for k in range(1, steps + 1):
        prompt |= zoom(k, resampling) | save(k, [f"coz_zoom_{k}", 0])
    return prompt


def one_step_prompt(workflow: Prompt, steps: int, seed: int) -> Prompt:
    """The picture's window for each scale, super-resolved once by the nodes of Chain Loop."""
    _, loop = loop_of(workflow)
    kind = loop["backbone"]
    if kind not in BACKBONES:
        raise ArmError(f"onestep knows no backbone {kind!r}: {', '.join(BACKBONES)}")
    chosen = {
        key.removeprefix("backbone."): value
        for key, value in loop.items()
        if key.startswith("backbone.")
    }
    prompt = workflow | picture()
    if kind != "upscale model":
        prompt |= texts(kind, chosen)
    for k in range(1, steps + 1):
        prompt |= zoom(k, "bicubic") | node(f"coz_sr_{k}", **step(kind, chosen, k, seed))
        image = [f"coz_sr_{k}", 0]
        if loop.get("color_fix", "none") != "none":
            fix = {"method": loop["color_fix"], "levels": WAVELET_LEVELS}
            view = {"image": image, "reference": [f"coz_zoom_{k}", 0]}
            prompt |= node(f"coz_fix_{k}", "CoZColorFix", **view, **fix)
            image = [f"coz_fix_{k}", 0]
        if loop.get("consistency", 0) != 0:
            view = {"image": image, "crop": [f"coz_zoom_{k}", 1], "zoomed": [f"coz_zoom_{k}", 0]}
            prompt |= node(f"coz_check_{k}", "CoZChainCheck", **view, strength=loop["consistency"])
            image = [f"coz_check_{k}", 0]
        prompt |= save(k, image)
    return needed(prompt)


def texts(kind: str, chosen: dict[str, Any]) -> Prompt:
    """The nodes that encode the texts of a diffusion model: an empty one, and the negative."""
    if kind == "one-step diffusion":
        inputs = {"clip": chosen["clip"], "prompt": "", "t5_tokens": T5_TOKENS}
        return node("coz_text", "CoZEncodePrompt", **inputs)
    negative = {"clip": chosen["clip"], "text": chosen["negative"]}
    return node("coz_text", "CLIPTextEncode", clip=chosen["clip"], text="") | node(
        "coz_negative", "CLIPTextEncode", **negative
    )


def step(kind: str, chosen: dict[str, Any], k: int, seed: int) -> dict[str, Any]:
    """The node of one step, as nodes/backbones makes it."""
    zoomed = [f"coz_zoom_{k}", 0]
    if kind == "upscale model":
        return {
            "class_type": "CoZUpscaleStep",
            "upscale_model": chosen["upscale_model"],
            "crop": [f"coz_zoom_{k}", 1],
            "zoomed": zoomed,
            "resampling": chosen["resampling"],
            "image": ["coz_picture", 0],
            "window": [f"coz_zoom_{k}", 2],
        }
    view = {"model": chosen["model"], "vae": chosen["vae"], "image": zoomed}
    view["positive"] = ["coz_text", 0]
    if kind == "one-step diffusion":
        return {"class_type": "CoZSRStep", **view, "latent_shift": chosen["latent_shift"]}
    sampling = {key: chosen[key] for key in ("cfg", "sampler_name", "scheduler", "denoise")}
    return {
        "class_type": "CoZRefineStep",
        **view,
        "negative": ["coz_negative", 0],
        "steps": chosen["sampling_steps"],
        **sampling,
        "seed": derive_step_seed(seed, k),
    }


def node(node_id: str, class_type: str, **inputs: Any) -> Prompt:
    return {node_id: {"class_type": class_type, "inputs": inputs}}


def picture() -> Prompt:
    return node("coz_picture", "LoadImage", image=PICTURE)


def zoom(k: int, resampling: str) -> Prompt:
    """The middle of the picture at scale 4^k: the window enlarged, and as it is."""
    factor = SCALE**k
    prompt, scale = {}, factor
    if factor > MOST_SCALE:
        prompt = node(f"coz_factor_{k}", "PrimitiveFloat", value=factor)
        scale = [f"coz_factor_{k}", 0]
    return prompt | node(
        f"coz_zoom_{k}",
        "CoZCropCenterZoom",
        image=["coz_picture", 0],
        scale=scale,
        center_x=MIDDLE.x,
        center_y=MIDDLE.y,
        resampling=resampling,
    )


def save(name: str | int, images: list) -> Prompt:
    """In 16 bits: the host's 8-bit files are cut off, not rounded, which no frame should be
    judged by."""
    inputs = {"images": images, "filename_prefix": KEY, "format": "png"}
    inputs |= {"format.bit_depth": "16-bit", "format.input_color_space": "sRGB"}
    return node(f"{FRAMES}_{name}", "SaveImageAdvanced", **inputs)


def needed(prompt: Prompt) -> Prompt:
    """The nodes that save frames, and those that they depend on."""
    kept, waiting = [], [name for name in prompt if name.startswith(FRAMES)]
    while waiting:
        name = waiting.pop()
        if name in kept or name not in prompt:
            continue
        kept.append(name)
        for value in prompt[name]["inputs"].values():
            if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str):
                waiting.append(value[0])
    return {name: prompt[name] for name in prompt if name in kept}
