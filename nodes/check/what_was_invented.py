import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy_api.latest import io, ui

from ...coz.chain.real_pixels import (
    MIN_COMPARED_SIDE_PIXELS,
    TOO_FEW_REAL_PIXELS,
    count_real_pixels,
    describe_real_pixels,
    is_comparable,
)
from ...coz.fidelity.back_projection import describe_agreement, measure_agreement
from ...coz.fidelity.banded_resize import resize_banded
from ...coz.fidelity.invented import (
    describe_invented,
    format_percent,
    map_disagreement,
    map_invented,
    measure_invented_area,
    measure_octaves,
)
from ...coz.fidelity.report import describe_deepest_frame
from ...coz.render.heat_map import draw_map_sheet, overlay_heat
from ...coz.render.strip import write_factor_label
from ...coz.resample import crop, resize
from ..host.images import to_bchw, to_image
from ..host.messages import finish_with_notices
from ..host.sockets import Chain
from .keep_true_to_source import match_sources

MAX_SHOWN_DISAGREEMENT = 0.05
"""Disagreement (standard deviation) from which on the map has its hottest color."""

MIN_LISTED_SHARE = 0.005
"""An octave (structures of 4 to 8 pixels, for example) is listed if at least this share of it is invented."""

MIN_INVENTED_SHARE = 0.5
"""An octave, or a frame, counts as invented if at least this share of it is."""

DISAGREEMENT_WORDS = ((0.02, "disagree, so that at most one is right"), (0.005, "differ a little"))
"""(minimum of the mean disagreement, how it is described), the largest first."""

IMAGE_LEGEND = ("in the source", "invented")
CHAIN_LEGEND = ("in the photograph", "invented")
RESULTS_LEGEND = ("all agree", "they disagree")
"""Labels of the coldest and the hottest color in the legend of a map."""


def describe_differences(results) -> str:
    """Describe how much several results of one view differ."""
    spread = map_disagreement(results)
    mean = float(spread.mean())
    words = next((words for least, words in DISAGREEMENT_WORDS if mean >= least), "agree")
    return (
        f"The {len(results)} results {words}: they differ by {format_percent(mean)} of the range of "
        f"brightness, at most {format_percent(float(spread.max()))}."
    )


def describe_real_structure_sizes(octaves) -> str:
    """Describe down to which size the structures of an image come from its source."""
    invented_sizes = [each.size for each in octaves if each.invented >= MIN_INVENTED_SHARE]
    if not invented_sizes:
        return "Structures of every size come from the source."
    real = 2 * invented_sizes[-1]
    if real > octaves[-1].size:
        return "Hardly any structure comes from the source."
    return f"Structures of {real} pixels and more come from the source, finer ones are mostly invented."


def judge_images(images, sources):
    """Compare images with their sources.

    Return the results and their enlarged sources, each (1, 3, H, W), the lines of the report, whether
    the results show one view, and the images that the node shows.
    """
    results = [x for image in images for x in to_bchw(image).split(1)]
    sources = [x for source in sources for x in to_bchw(source, "source").split(1)]
    comparable = len(sources) == 1
    lines, references, shown = [], [], []
    for k, (result, source) in enumerate(
        zip(results, match_sources(sources, len(results)), strict=True)
    ):
        throw_exception_if_processing_interrupted()
        reference = resize_banded(source, *result.shape[-2:]).clamp(0, 1)
        references.append(reference)
        name = f"Result {k + 1}: " if len(results) > 1 else ""
        height, width = source.shape[-2:]
        count = f"{width} x {height} pixels of its source"
        agrees = describe_agreement(measure_agreement(result, source), "its source")
        if min(height, width) < MIN_COMPARED_SIDE_PIXELS:
            lines.append(f"{name}The image shows {count}, {TOO_FEW_REAL_PIXELS}. It {agrees}.")
            shown.append(draw_map_sheet(f"{name}{count}, {TOO_FEW_REAL_PIXELS}", result))
            continue
        octaves, heat = measure_octaves(result, reference), map_invented(result, reference)
        lines.append(
            f"{name}{describe_real_structure_sizes(octaves)} The image {agrees}; "
            f"{describe_invented(measure_invented_area(heat))}."
        )
        sizes = [
            f"{format_percent(octave.invented)} of {octave.size} to {2 * octave.size} pixels"
            for octave in octaves
            if octave.invented >= MIN_LISTED_SHARE
        ]
        if sizes:
            lines.append("Invented share of its structures by size: " + ", ".join(sizes) + ".")
        shown.append(draw_map_sheet(f"{name}{count}", result, heat, IMAGE_LEGEND))
    if len(results) > 1 and comparable:
        lines.append(describe_differences(results))
    elif len(results) > 1:
        lines.append(
            "Each result has its own source, so the results are not compared with each other."
        )
    return results, references, lines, comparable, shown


def judge_chains(chains):
    """Compare the frames of chains with their sources; return the same as ``judge_images``.

    The results are the deepest frames that all chains have.
    """
    depth = min(len(chain.frames) for chain in chains) - 1
    first = chains[0]
    for number, chain in enumerate(chains[1:], 2):
        same = [f.shape for f in chain.frames[: depth + 1]] == [
            f.shape for f in first.frames[: depth + 1]
        ]
        if not same or chain.windows[:depth] != first.windows[:depth]:
            raise ValueError(
                f"chain {number} and chain 1 show different places or have frames of different sizes, "
                "so they cannot be compared. Connect chains with the same image, target, scale and size, "
                "which differ in their seed, prompts or model"
            )
    lines, areas = [], {}
    for layer in range(2, depth + 1):
        real = count_real_pixels(first, layer)
        label = write_factor_label(first, layer)
        for k, chain in enumerate(chains):
            throw_exception_if_processing_interrupted()
            frame, previous = chain.frames[layer], chain.frames[layer - 1]
            lq = crop(previous, chain.windows[layer - 1])
            name = f"chain {k + 1}, " if len(chains) > 1 else ""
            if is_comparable(real):
                area = measure_invented_area(map_invented(frame, resize_source(chain, layer)))
                areas[label] = max(area, areas.get(label, 0))
                against = f". Compared with the photograph, {describe_invented(area)}."
            else:
                against = f", {TOO_FEW_REAL_PIXELS}."
            compared = "its input" if layer == 2 else "its invented input"
            lines.append(
                f"{name}{label}: {describe_real_pixels(real)}{against} The step "
                f"{describe_agreement(measure_agreement(frame, lq), compared)}."
            )
        if len(chains) > 1:
            lines.append(
                f"{label}: {describe_differences([chain.frames[layer] for chain in chains])}"
            )
    sentence = describe_deepest_frame(first, depth)
    if depth < 2:
        sentence += " There is no step to judge."
    elif areas:
        mostly_real = [label for label, area in areas.items() if area < MIN_INVENTED_SHARE]
        if mostly_real:
            sentence += (
                f" Down to {mostly_real[-1]}, less than half of the area shows invented structure."
            )
        else:
            sentence += (
                f" Already at {next(iter(areas))}, most of the area shows invented structure."
            )
    if any(len(chain.frames) > depth + 1 for chain in chains):
        sentence += " Longer chains are judged down to this frame."
    results = [chain.frames[depth] for chain in chains]
    references = [resize_source(chain, depth) for chain in chains]
    return results, references, [sentence, *lines], True, [*draw_chain_maps(chains, depth)]


def draw_chain_maps(chains, depth):
    """Yield for each chain the map of its deepest frame that can be compared with the source."""
    first = chains[0]
    layers = [k for k in range(1, depth + 1) if is_comparable(count_real_pixels(first, k))]
    layer = layers[-1] if layers else depth
    title = f"{write_factor_label(first, layer)}: {describe_real_pixels(count_real_pixels(first, layer))}"
    if layer < depth:
        title += f". Deeper: {TOO_FEW_REAL_PIXELS}"
    for k, chain in enumerate(chains, 1):
        name = f"Chain {k}, " if len(chains) > 1 else ""
        frame = chain.frames[layer]
        if layers:
            heat = map_invented(frame, resize_source(chain, layer))
            yield draw_map_sheet(f"{name}{title}", frame, heat, CHAIN_LEGEND)
        else:
            yield draw_map_sheet(f"{name}{title}, {TOO_FEW_REAL_PIXELS}", frame)


def resize_source(chain, layer):
    """Enlarge the window of the source that a layer shows to the size of the layer."""
    height, width = chain.frames[layer].shape[-2:]
    box = chain.find_window_in(layer, 0)
    return resize(chain.frames[0], height, width, box=box).clamp(0, 1)


class CoZWhatWasInvented(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZDetailMap",  # an older name, kept for saved workflows
            display_name="CoZ What Was Invented",
            category="Chain-of-Zoom/check",
            description="Shows which detail of an enlarged image or a chain is not in its source: in a "
            "sentence, as a map, and as a percentage for each size of detail. It also compares several "
            "results of the same view and shows where they disagree.",
            search_aliases=[
                "heat map",
                "invented",
                "hallucination",
                "difference",
                "uncertainty",
                "disagreement",
            ],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The enlarged image. To compare several results of the same view, made with "
                    "different seeds, prompts or models, connect them as a batch or a list. All must have "
                    "the same size.",
                ),
                io.Image.Input(
                    "source",
                    optional=True,
                    tooltip="The image that was enlarged. It must show the same view as the enlarged image "
                    "and be no larger. Connect one source for all results, or one for each.",
                ),
                Chain.Input(
                    "chain",
                    optional=True,
                    tooltip="A chain, used instead of image and source. Each of its frames is judged. "
                    "Connect several chains of the same target as a list to compare them. Chain Loop makes "
                    "such a list from a list of seeds or prompts.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "map",
                    tooltip="The image in gray. Colors mark structure that is not in the source: violet a "
                    "little, red more, yellow nearly all. One map for each result. For a chain: "
                    "the map of its deepest frame.",
                ),
                io.Image.Output(
                    "disagreement",
                    tooltip="The mean of all results in gray. Colors mark where the results disagree: "
                    "violet a little, red more, yellow most (a standard deviation of at least 5 percent of "
                    "the brightness range). Nothing is colored if there is only one result, or if the "
                    "results have different sources.",
                ),
                io.String.Output(
                    "figures",
                    tooltip="A judgment in words, then all figures as text. The node shows it too.",
                ),
            ],
        )

    @classmethod
    def execute(cls, image=None, source=None, chain=None) -> io.NodeOutput:
        if chain and not image and not source:
            results, references, lines, comparable, shown = judge_chains(chain)
        elif image and source and not chain:
            results, references, lines, comparable, shown = judge_images(image, source)
        else:
            inputs = {"image": image, "source": source, "chain": chain}
            given = [name for name, values in inputs.items() if values]
            raise ValueError(
                "connect image and source together, or chain alone: a chain holds its own source. Of the "
                f"three, {len(given)} are connected: {', '.join(given) or 'none'}"
            )
        spread = (map_disagreement(results) / MAX_SHOWN_DISAGREEMENT).clamp(0, 1)
        maps = [
            overlay_heat(result, map_invented(result, reference))
            for result, reference in zip(results, references, strict=True)
        ]
        base = torch.cat(results)
        if comparable:
            base = base.mean(0, keepdim=True)
        else:
            spread = torch.zeros_like(base[:, :1])
        if comparable and len(results) > 1:
            title = f"Where the {len(results)} results disagree, they are guesses"
            shown.append(draw_map_sheet(title, base, spread, RESULTS_LEGEND))
        saved = [ui.PreviewImage(to_image(picture)).as_dict()["images"] for picture in shown]
        figures = "\n".join(lines)
        return io.NodeOutput(
            to_image(torch.cat(maps)),
            to_image(overlay_heat(base, spread)),
            figures,
            ui={"images": [file for files in saved for file in files]}
            | finish_with_notices(figures),
        )
