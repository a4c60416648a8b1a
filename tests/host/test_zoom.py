"""Chain Loop in the real host gives the bytes of ``coz.zoom`` with the step nodes as its callables."""

import pytest
import torch

from coz.geometry import Target, plan_zoom
from coz.zoom import zoom
from tools.host import ROOT
from tools.host.workflow import find_node, read_prompt

from .prompts import chain_prompt, make_node

WORKFLOWS = {
    "one-step diffusion": "2 Chain-of-Zoom SD3",
    "vision-language model": "4 Chain-of-Zoom as in the paper (AR-2)",
    "tags (RAM/DAPE)": "more/Chain-of-Zoom SD3 + tags",
    "any checkpoint": "5 Your own checkpoint",
}


@pytest.fixture
def run(listed_models, executor, keeper):
    """Runs a graph: the scales and prompts of its loop, and the models that are linked into it."""
    kinds = {"model": "MODEL", "vae": "VAE", "clip": "CLIP", "vlm": "CLIP", "tagger": "COZ_TAGGER"}
    kinds |= {"upscale_model": "UPSCALE_MODEL", "image": "IMAGE", "scales": "IMAGE"}
    kept = keeper("TestKeep", kinds | {"prompts": "STRING"}, "optional")

    def run_graph(graph):
        loop = find_node(graph, "CoZChainLoop")
        inputs = graph[loop]["inputs"]
        links = {key: value for key, value in inputs.items() if isinstance(value, list)}
        links = {key.partition(".")[2] or key: value for key, value in links.items()}
        links |= {"scales": [loop, 1], "prompts": [loop, 2]}
        graph["kept"] = make_node("TestKeep", **links)
        executor("CLASSIC").run(graph, "kept")
        return kept[-1]

    return run_graph


def make_chain(node, inputs, kept):
    """``coz.zoom`` with a Chain Loop's inputs, each callable being the node that does it."""

    def to_image(x):
        return x.movedim(1, -1)

    def super_resolve(view, text):
        chosen = {key.partition(".")[2]: value for key, value in inputs.items()}
        zoomed = to_image(view.zoomed)
        if inputs["backbone"] == "upscale model":
            box = dict(zip(("x", "y", "width", "height"), map(int, view.window), strict=True))
            around = {"image": to_image(view.frame), "window": box}
            step = node("CoZUpscaleStep").execute
            sr = step(kept["upscale_model"], to_image(view.crop), zoomed, **around)
        elif inputs["backbone"] == "one-step diffusion":
            cond = node("CoZEncodePrompt").execute(kept["clip"], text)[0]
            sr = node("CoZSRStep").execute(kept["model"], kept["vae"], cond, zoomed)
        else:
            encode = node("CLIPTextEncode")().encode
            conds = [encode(kept["clip"], words)[0] for words in (text, chosen["negative"])]
            names = ("sampling_steps", "cfg", "sampler_name", "scheduler", "denoise")
            settings = [chosen[name] for name in names]
            refine = node("CoZRefineStep").execute
            sr = refine(kept["model"], kept["vae"], *conds, zoomed, *settings, seed=view.seed)
        return sr[0].movedim(-1, 1)

    def describe(frame, zoomed):
        if inputs["prompting"] == "text":
            return inputs["prompt"]
        if inputs["prompting"] == "tags (RAM/DAPE)":
            words = {"exclude": inputs["prompting.exclude"], "prompt": inputs["prompt"]}
            return node("CoZTagPrompt").execute(kept["tagger"], to_image(zoomed), **words)[0]
        how = {"max_tokens": inputs["prompting.max_tokens"], "previous_image": to_image(frame)}
        how["sampling_mode"] = {"sampling_mode": "off"}
        extract = node("CoZPromptExtractor").execute
        return extract(kept["vlm"], to_image(zoomed), inputs["prompt"], **how)[0]

    def align(sr, view):
        images = to_image(sr), to_image(view.zoomed)
        fixed = node("CoZColorFix").execute(*images, inputs["color_fix"])[0]
        if strength := inputs.get("consistency"):
            fixed = node("CoZConsistency").execute(fixed, to_image(view.crop), strength, 10)[0]
        return fixed.movedim(-1, 1)

    image = kept["image"].movedim(-1, 1)
    target = Target(inputs["center_x"], inputs["center_y"])
    steps, scale, *frame = (inputs[name] for name in ("steps", "scale", "frame", "size", "seed"))
    plan = plan_zoom(*image.shape[-2:], steps, scale, target, *frame)
    with torch.inference_mode():
        return zoom(image, plan, super_resolve, describe, align)


def require_equal(node, run, graph):
    kept = run(graph)
    chain = make_chain(node, graph[find_node(graph, "CoZChainLoop")]["inputs"], kept)
    assert kept["prompts"].split("\n") == [text or "-" for text in chain.prompts]
    assert torch.equal(kept["scales"].movedim(-1, 1), torch.cat(chain.frames[1:]))


@pytest.mark.parametrize(
    ("color_fix", "consistency"),
    [("wavelet", 0.0), ("adain", 0.0), ("none", 0.0), ("wavelet", 0.5)],
)
def test_upscale_model(node, run, color_fix, consistency):
    place = {"scale": 3.2, "center_x": 0.02, "center_y": 0.5, "consistency": consistency}
    require_equal(node, run, chain_prompt(steps=3, color_fix=color_fix, **place))


@pytest.mark.parametrize("source", WORKFLOWS)
def test_diffusion_and_texts_of_a_model(node, run, source):
    graph = read_prompt(ROOT / "workflows" / f"{WORKFLOWS[source]}.json")
    inputs = graph[find_node(graph, "CoZChainLoop")]["inputs"]
    inputs |= {"size": 32, "steps": 2, "seed": 5}
    small = {"backbone.sampling_steps": 3, "prompting.max_tokens": 6}
    inputs |= {key: value for key, value in small.items() if key in inputs}
    require_equal(node, run, graph)
