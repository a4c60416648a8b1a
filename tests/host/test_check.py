"""What is true to the source and what is invented: the nodes, on real pictures and chains."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from coz.fidelity.back_projection import describe_agreement, measure_agreement
from coz.fidelity.invented import map_invented
from coz.geometry import Window
from coz.render.heat_map import draw_map_sheet, overlay_heat
from coz.resample import resize
from tests.support.images import noise

from .prompts import chain_prompt, make_node


def upscale(node, image):
    model = node("UpscaleModelLoader").execute("coz_lite_x4.safetensors")[0]
    with torch.inference_mode():
        return node("ImageUpscaleWithModel").execute(model, image)[0]


@pytest.fixture(scope="module")
def photograph(node):
    """A photograph (1, H, W, 3), its small source, and what the built-in model makes of that."""
    truth = node("CoZSamplePicture").execute("astronaut.png")[0][:, :256, :256]
    source = resize(truth.movedim(-1, 1), 64, 64).clamp(0, 1).movedim(1, -1)
    return truth, source, upscale(node, source)


@pytest.mark.parametrize("kernel", ["bicubic", "area"])
def test_the_result_is_truer_than_what_came(node, photograph, kernel):
    truth, source, sr = photograph
    before = sr.clone(), source.clone()
    image, db, share, report = node("CoZConsistency").execute(sr, source, 1.0, 10, kernel).args
    was = measure_agreement(sr.movedim(-1, 1).clamp(0, 1), source.movedim(-1, 1), kernel)
    assert db == measure_agreement(image.movedim(-1, 1), source.movedim(-1, 1), kernel)
    assert db > 60 > was
    assert report == (
        "The image of 256 x 256 pixels shows 64 x 64 pixels of its source. It repeats its source "
        f"({db:.1f} dB); before the correction it had {was:.1f} dB. "
        f"{share:.1f} % of its energy is not in the source."
    )
    assert 0 < share < 10
    assert 0 <= image.min() <= image.max() <= 1
    if kernel == "bicubic":  # the one that made the source
        assert (image - truth).square().mean() < (sr - truth).square().mean()
    assert torch.equal(sr, before[0])
    assert torch.equal(source, before[1])


def test_of_a_flat_picture_nothing_is_invented(node):
    source = torch.tensor([90, 140, 200]).expand(1, 32, 48, 3) / 255
    sr = upscale(node, source)
    assert not torch.equal(sr, sr[:, :1, :1].expand_as(sr))
    report = node("CoZConsistency").execute(sr, source, 0.0, 10)[3]
    assert report.endswith(" dB). 0.0 % of its energy is not in the source.")


def test_strength_0_only_measures(node, photograph):
    _, source, sr = photograph
    image, db, _, report = node("CoZConsistency").execute(sr, source, 0.0, 10).args
    assert torch.equal(image, sr.clamp(0, 1))
    told = describe_agreement(db, "its source")
    shown = "The image of 256 x 256 pixels shows 64 x 64 pixels of its source."
    assert report.startswith(f"{shown} It {told}. ")


def test_a_batch_is_measured_picture_by_picture(node):
    def correct(images, sources):
        return node("CoZConsistency").execute(images, sources, 0.5, 10).args

    images, sources = noise(2, 32, 40, 3), noise(2, 8, 10, 3, seed=1)
    image, db, share, report = correct(images, sources)
    frames, agreements, shares, reports = zip(
        *(correct(*pair) for pair in zip(images.split(1), sources.split(1), strict=True)),
        strict=True,
    )
    assert torch.equal(image, torch.cat(frames))
    assert (db, share, report) == (min(agreements), max(shares), "\n".join(reports))
    assert correct(images, sources[:1])[3].splitlines()[0] == report.splitlines()[0]


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (1, 1, 7, 3), (1, 4, 5, 4), (1, 4, 5, 1)])
def test_tiny_pictures_alpha_and_grey(node, shape):
    image, source = noise(*shape), noise(1, 1, 1, 3, seed=1)
    assert node("CoZConsistency").execute(image, source, 1.0, 10)[0].shape == (*shape[:3], 3)
    for shown in node("CoZDetailMap").execute([image], [source]).args[:2]:
        assert shown.shape == (*shape[:3], 3)


@pytest.mark.parametrize(
    ("image", "source", "message"),
    [
        ((1, 8, 8, 3), (1, 32, 32, 3), "source is 32 x 32 pixels and the image 8 x 8.*Connect"),
        ((3, 8, 8, 3), (2, 4, 4, 3), "2 images.*3.*one source for all images, or one for each"),
    ],
)
def test_errors_say_what_to_connect(node, image, source, message):
    with pytest.raises(ValueError, match=message):
        node("CoZConsistency").execute(noise(*image), noise(*source), 1.0, 10)
    with pytest.raises(ValueError, match=message):
        node("CoZDetailMap").execute([noise(*image)], [noise(*source)])


@pytest.mark.parametrize("name", ["image", "source"])
def test_nan_is_refused(node, name):
    pictures = {"image": noise(1, 8, 8, 3), "source": noise(1, 4, 4, 3)}
    pictures[name][0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=f"{name} holds 1 values that are NaN"):
        node("CoZConsistency").execute(**pictures, strength=1.0, iterations=10)
    with pytest.raises(ValueError, match=f"{name} holds 1 values that are NaN"):
        node("CoZDetailMap").execute(**{key: [picture] for key, picture in pictures.items()})


def test_the_finest_structures_of_an_enlargement_are_invented(node, photograph):
    _, source, sr = photograph
    heat, disagreement, figures = node("CoZDetailMap").execute([sr], [source]).args
    first, second = figures.splitlines()
    assert first.startswith(
        "Structures of 4 pixels and more come from the source, finer ones are mostly invented. The "
        "image repeats its source (4"
    )
    assert "; almost nothing of its area is invented (0." in first
    assert second.startswith("Invented share of its structures by size: 9")
    assert "% of 1 to 2 pixels" in second
    assert "% of 8 to 16 pixels" not in second
    assert heat.shape == disagreement.shape == sr.shape
    assert (heat[..., 0] - heat[..., 1]).max() > 0.2  # colour: heat over the grey picture
    assert torch.equal(disagreement[..., 0], disagreement[..., 1])


def test_results_of_one_view_are_compared_as_batch_or_list(node):
    source, sr = noise(1, 8, 8, 3), noise(1, 32, 32, 3, seed=1)
    other = sr.clone()
    other[:, :, 16:] = noise(1, 32, 16, 3, seed=2)
    as_list = node("CoZDetailMap").execute([sr, other], [source]).args
    as_batch = node("CoZDetailMap").execute([torch.cat([sr, other])], [source]).args
    assert torch.equal(as_list[0], as_batch[0])
    assert torch.equal(as_list[1], as_batch[1])
    assert as_list[2] == as_batch[2]
    maps, disagreement, figures = as_list
    assert maps.shape == (2, 32, 32, 3)
    grey = disagreement[..., 0] == disagreement[..., 2]
    assert grey[:, :, :16].all()
    assert grey[:, :, 16:].float().mean() < 0.1
    assert figures.splitlines()[2].startswith("Result 2: ")
    assert "The 2 results disagree, so that at most one is right: they differ by" in figures
    own = node("CoZDetailMap").execute([sr, other], [source, source]).args
    assert "Each result has its own source" in own[2]
    assert (own[1][..., 0] == own[1][..., 2]).all()
    assert own[1].shape == (2, 32, 32, 3)  # each in grey: a mean of different views shows nothing


def test_results_of_other_sizes_are_refused(node):
    results = [noise(1, 32, 32, 3), noise(1, 32, 40, 3)]
    with pytest.raises(ValueError, match=r"images .* same size, got 32 x 32, 40 x 32"):
        node("CoZDetailMap").execute(results, [noise(1, 8, 8, 3)])


def test_it_can_be_stopped_between_pictures_and_frames(node, make_chain, mm):
    pictures = {"image": [noise(2, 8, 8, 3)], "source": [noise(1, 4, 4, 3)]}
    for inputs in (pictures, {"chain": [make_chain()]}):
        mm.interrupt_current_processing()
        with pytest.raises(mm.InterruptProcessingException):
            node("CoZDetailMap").execute(**inputs)


def test_a_chain_alone_or_two_pictures(node, make_chain):
    image = [noise(1, 8, 8, 3)]
    for inputs in ({}, {"image": image}, {"source": image}, {"image": image, "chain": [1]}):
        connected = ", ".join(inputs) or "none"
        told = f"chain alone.* Of the three, {len(inputs)} are connected: {connected}"
        with pytest.raises(ValueError, match=f"image and source together, or {told}"):
            node("CoZDetailMap").execute(**inputs)


def test_chains_of_other_places_are_refused(node, make_chain):
    with pytest.raises(ValueError, match="chain 2 and chain 1 show different places"):
        node("CoZDetailMap").execute(chain=[make_chain(), make_chain(center=(0.1, 0.9))])
    with pytest.raises(ValueError, match="show different places"):
        node("CoZDetailMap").execute(chain=[make_chain(), make_chain(size=80)])


def test_chains_are_compared_in_the_scales_that_all_have(node, make_chain):
    long, short = make_chain(steps=3), make_chain(steps=2)
    other = (*short.frames[:-1], noise(1, 3, 64, 64, seed=9))
    maps, _, figures = node("CoZDetailMap").execute(chain=[long, replace(short, frames=other)]).args
    sentence, *lines = figures.splitlines()
    assert sentence == (
        "The deepest frame (16x) shows 4 x 4 real pixels: nearly everything in it is invented. Already "
        "at 4x, most of the area shows invented structure. Longer chains are judged down to this frame."
    )
    assert [line.partition(":")[0] for line in lines] == [
        "chain 1, 4x", "chain 2, 4x", "4x", "chain 1, 16x", "chain 2, 16x", "16x",
    ]  # fmt: skip
    assert lines[2] == (
        "4x: The 2 results agree: they differ by 0.0 % of the range of brightness, at most 0.0 %."
    )
    assert "disagree, so that at most one is right" in lines[5]
    assert maps.shape == (2, 64, 64, 3)


def test_a_chain_without_a_zoom_has_nothing_to_judge(node, make_chain):
    assert node("CoZDetailMap").execute(chain=[make_chain(steps=0)])[2] == (
        "The deepest frame (1x) is all real: nothing in it had to be invented. There is no step to "
        "judge."
    )


def test_frames_of_too_few_real_pixels_are_not_compared_with_the_photograph(node, make_chain):
    sentence, *lines = node("CoZDetailMap").execute(chain=[make_chain(size=128)])[2].splitlines()
    assert sentence == (
        "The deepest frame (64x) shows 2 x 2 real pixels: nearly everything in it is invented. Already "
        "at 4x, most of the area shows invented structure."
    )
    told = "real pixels. Compared with the photograph, nearly all of its area is invented ("
    for line, count in zip(lines, ("32 x 32", "8 x 8"), strict=False):
        assert f": {count} {told}" in line
        assert ". The step contradicts its " in line
    start = "64x: 2 x 2 real pixels, too few real pixels to compare. The step contradicts "
    assert lines[2].startswith(start)
    assert "%" not in lines[2]


def test_how_far_down_the_photograph_explains_the_frames(node, make_chain):
    chain = make_chain(size=512, height=600, width=600)
    frames = [chain.frames[0]]
    for layer in range(1, 5):  # plain enlargements
        view = resize(frames[0], 512, 512, box=chain.find_window_in(layer, 0)).clamp(0, 1)
        frames.append(view if layer < 4 else chain.frames[layer])
    chain = replace(chain, frames=tuple(frames))
    sentence, *lines = node("CoZDetailMap").execute(chain=[chain])[2].splitlines()
    assert sentence.endswith(
        "a blur of colors is invented. Down to 16x, less than half of the area shows invented structure."
    )
    told = "Compared with the photograph, almost nothing of its area is invented (0.0 %)."
    assert told in lines[1]


def test_sixteen_steps_and_tiny_sources_are_judged(node, make_chain):
    deep = make_chain(64, 64, size=16, steps=16, scale=8.0)
    sentence, *lines = node("CoZDetailMap").execute(chain=[deep])[2].splitlines()
    assert "shows less than one real pixel: everything in it is invented." in sentence
    assert len(lines) == 16
    assert all("too few real pixels to compare" in line for line in lines)
    figures = node("CoZDetailMap").execute([noise(1, 32, 32, 3)], [noise(1, 7, 9, 3)])[2]
    start = "The image shows 9 x 7 pixels of its source, too few real pixels to compare. It "
    assert figures.startswith(start)
    assert len(figures.splitlines()) == 1
    assert "%" not in figures


def shown_on(node, **inputs):
    """The pictures on the node, as arrays, and its lines."""
    import folder_paths

    output = node("CoZDetailMap").execute(**inputs)
    folder = Path(folder_paths.get_temp_directory())
    pictures = [np.array(Image.open(folder / file["filename"])) for file in output.ui["images"]]
    return pictures, output


def test_the_node_shows_the_map_of_the_deepest_frame_that_can_be_compared(node, make_chain):
    chain = make_chain(size=128)
    ((picture,), output) = shown_on(node, chain=[chain])
    frame = chain.frames[3]  # 8 x 8; the output map is that of the deepest frame
    heat = map_invented(frame, photograph_of(chain, 3))
    title = "16x: 8 x 8 real pixels. Deeper: too few real pixels to compare"
    expected = draw_map_sheet(title, frame, heat, ("in the photograph", "invented"))
    assert np.array_equal(picture, as_bytes(expected))
    deepest = map_invented(chain.frames[4], photograph_of(chain, 4))
    assert torch.equal(output[0].movedim(-1, 1), overlay_heat(chain.frames[4], deepest))
    tiny = make_chain(7, 7, size=16, steps=1)
    tiny = replace(tiny, windows=(Window(0, 0, 7, 7), tiny.windows[1]))
    ((picture,), _) = shown_on(node, chain=[tiny])
    title = "4x: 1.75 x 1.75 real pixels, too few real pixels to compare"
    assert np.array_equal(picture, as_bytes(draw_map_sheet(title, tiny.frames[2])))


def test_the_node_shows_each_result_and_where_they_disagree(node):
    source, results = noise(1, 8, 8, 3), [noise(1, 32, 32, 3, seed=k) for k in (1, 2)]
    pictures, output = shown_on(node, image=results, source=[source])
    assert len(pictures) == 3
    assert not np.array_equal(pictures[0], pictures[1])
    assert output[1].shape == (1, 32, 32, 3)
    pictures, _ = shown_on(node, image=results, source=[source, source])
    assert len(pictures) == 2  # not compared


def photograph_of(chain, layer):
    size = chain.frames[layer].shape[-2:]
    return resize(chain.frames[0], *size, box=chain.find_window_in(layer, 0)).clamp(0, 1)


def as_bytes(picture):
    return (picture[0].movedim(0, -1) * 255).round().byte().numpy()


def test_in_the_host(executor, pack):
    """A chain judged, and a list of results taken as one set, all in one prompt."""
    prompt = chain_prompt(steps=2)
    del prompt["scales"]
    size = {"upscale_method": "area", "width": 16, "height": 16, "crop": "disabled"}
    settings = {"strength": 1.0, "iterations": 10, "kernel": "area"}
    prompt |= {
        "judge": make_node("CoZDetailMap", chain=["loop", 3]),
        "size": make_node("ImageScale", image=["loop", 1], **size),
        "true": make_node("CoZConsistency", image=["loop", 1], source=["size", 0], **settings),
        "list": make_node("RebatchImages", images=["true", 0], batch_size=1),
        "one": make_node("ImageFromBatch", image=["size", 0], batch_index=0, length=1),
        "compare": make_node("CoZDetailMap", image=["list", 0], source=["one", 0]),
        "batch": make_node("ImageBatch", image1=["judge", 0], image2=["compare", 1]),
        "scales": make_node("PreviewImage", images=["batch", 0]),
    }
    host = executor("LRU")
    assert host.run(prompt).count("compare") == 1
    # The last text on each node.
    assert len(dict(host.notices)["true"].splitlines()) == 3
    judged, compared = host.ui("judge"), host.ui("compare")
    lines = judged["coz_text"][0].splitlines()
    assert [line.partition(":")[0] for line in lines[1:]] == ["4x", "16x"]
    assert " Compared with the photograph, " in lines[1]
    assert len(judged["images"]) == 1
    assert "The 3 results disagree" in compared["coz_text"][0].splitlines()[-1]
    assert len(compared["images"]) == 4
    alone = {name: prompt[name] for name in ("source", "model", "loop", "judge")}
    assert host.run(alone, "judge") == []  # an output node, kept since
