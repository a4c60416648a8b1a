import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy_api.latest import io

from ..coz.banded import resized
from ..coz.consistency import agreement, decibels
from ..coz.detail import disagreement, invented, invented_map, octaves, percent
from ..coz.heat import lay_over
from ..coz.resample import crop, resize
from ..coz.strip import factor_label
from .collect import Chain
from .consistency import one_for_each
from .host import SEARCH_ALIASES, closing, to_bchw, to_image

WIDEST = 0.05
"""Disagreement (standard deviation) that is shown as the hottest."""

TOLD = 0.005
"""Share from which on a size of structure is listed."""


def compared(results) -> str:
    """How much several results of one view differ, in words."""
    spread = disagreement(results)
    return (
        f"the {len(results)} results differ by {percent(float(spread.mean()))} of the range of brightness, "
        f"at most {percent(float(spread.max()))}"
    )


def read_pictures(images, sources):
    """The results and their enlarged sources, each (1, 3, H, W), and the figures."""
    results = [x for image in images for x in to_bchw(image).split(1)]
    sources = [x for source in sources for x in to_bchw(source, "source").split(1)]
    comparable = len(sources) == 1
    lines, references = [], []
    for k, (result, source) in enumerate(
        zip(results, one_for_each(sources, len(results)), strict=True)
    ):
        throw_exception_if_processing_interrupted()
        references.append(resized(source, *result.shape[-2:]).clamp(0, 1))
        sizes = [
            f"{percent(band.invented)} of those of {band.size} to {2 * band.size} pixels"
            for band in octaves(result, references[k])
            if band.invented >= TOLD
        ]
        name = f"result {k + 1}: " if len(results) > 1 else ""
        lines.append(
            f"{name}agrees with its source to {decibels(agreement(result, source))}, "
            f"invented {percent(invented(result, references[k]))}"
        )
        if sizes:
            lines.append("of its structures: " + ", ".join(sizes))
    if len(results) > 1 and comparable:
        lines.append(compared(results))
    elif len(results) > 1:
        lines.append("each result has a source of its own, so they are not compared")
    return results, references, lines, comparable


def read_chains(chains):
    """As ``read_pictures``, of the deepest frame that all chains have."""
    depth = min(len(chain.frames) for chain in chains) - 1
    first = chains[0]
    for number, chain in enumerate(chains[1:], 2):
        same = [f.shape for f in chain.frames[: depth + 1]] == [
            f.shape for f in first.frames[: depth + 1]
        ]
        if not same or chain.windows[:depth] != first.windows[:depth]:
            raise ValueError(
                f"chain {number} and chain 1 look at different places or have frames of different sizes, "
                "so they cannot be compared. Connect chains of one picture, target, scale and size, which "
                "differ in their seed, prompts or model"
            )
    lines = []
    for layer in range(2, depth + 1):
        for k, chain in enumerate(chains):
            throw_exception_if_processing_interrupted()
            frame, view = chain.frames[layer], chain.frames[layer - 1]
            lq = crop(view, chain.windows[layer - 1])
            name = f"chain {k + 1}, " if len(chains) > 1 else ""
            lines.append(
                f"{name}{factor_label(chain, layer)}: agrees with its input to "
                f"{decibels(agreement(frame, lq))}, invented "
                f"{percent(invented(frame, resized(lq, *frame.shape[-2:]).clamp(0, 1)))} against its input, "
                f"{percent(invented(frame, photograph(chain, layer)))} against the source photograph"
            )
        if len(chains) > 1:
            results = [chain.frames[layer] for chain in chains]
            lines.append(f"{factor_label(first, layer)}: {compared(results)}")
    if depth < 2:
        lines.append("no zoom to judge: the chain holds its first frame only")
    results = [chain.frames[depth] for chain in chains]
    return results, [photograph(chain, depth) for chain in chains], lines, True


def photograph(chain, layer):
    """What the source holds of a layer's view, at its size."""
    height, width = chain.frames[layer].shape[-2:]
    box = chain.window_in(layer, 0)
    return resize(chain.frames[0], height, width, box=box).clamp(0, 1)


class CoZDetailMap(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZDetailMap",
            display_name="CoZ What Was Invented",
            category="Chain-of-Zoom/check",
            description="Shows what an enlarged picture or a chain holds that its source does not: where, how much, and in "
            "structures of which size. Several results of one view are compared: where they disagree, they are guesses.",
            search_aliases=[
                *SEARCH_ALIASES,
                "heat map",
                "invented",
                "hallucination",
                "difference",
                "uncertainty",
                "disagreement",
            ],
            is_input_list=True,
            inputs=[
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The enlarged picture. Several results of one view, as a batch or a list, are also compared.",
                ),
                io.Image.Input(
                    "source",
                    optional=True,
                    tooltip="The picture that was enlarged, showing the same view: one for all, or one for each picture.",
                ),
                Chain.Input(
                    "chain",
                    optional=True,
                    tooltip="In place of image and source: a chain, judged scale by scale. Several chains of one target are "
                    "also compared.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "map",
                    tooltip="The picture in grey; in violet, red and yellow what its source does not hold. Of a chain, the "
                    "deepest frame against the source photograph.",
                ),
                io.Image.Output(
                    "disagreement",
                    tooltip="The mean of all results in grey; in violet, red and yellow where they disagree. Grey alone with "
                    "one result.",
                ),
                io.String.Output(
                    "figures", tooltip="All figures as text, for each scale or result."
                ),
            ],
        )

    @classmethod
    def execute(cls, image=None, source=None, chain=None) -> io.NodeOutput:
        if chain and not image and not source:
            results, references, lines, comparable = read_chains(chain)
        elif image and source and not chain:
            results, references, lines, comparable = read_pictures(image, source)
        else:
            inputs = {"image": image, "source": source, "chain": chain}
            given = [name for name, values in inputs.items() if values]
            raise ValueError(
                "connect image and source together, or chain alone: a chain holds its own source. Of "
                f"the three {len(given)} are connected: {', '.join(given) or 'none'}"
            )
        figures = "\n".join(lines)
        spread = disagreement(results) / WIDEST
        maps = [
            lay_over(result, invented_map(result, reference))
            for result, reference in zip(results, references, strict=True)
        ]
        under = torch.cat(results)
        if comparable:
            under = under.mean(0, keepdim=True)
        else:
            spread = torch.zeros_like(under[:, :1])
        return io.NodeOutput(
            to_image(torch.cat(maps)),
            to_image(lay_over(under, spread.clamp(0, 1))),
            figures,
            ui=closing(figures),
        )
