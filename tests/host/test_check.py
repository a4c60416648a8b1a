"""What is true to the source and what is invented: the nodes, on real pictures and chains."""

from dataclasses import replace

import pytest
import torch

from coz.consistency import agreement
from coz.resample import resize

from .prompts import chain_prompt


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def photograph(node):
    """A photograph (1, H, W, 3), its small source, and what the built-in model makes of that."""
    from comfy_extras.nodes_upscale_model import ImageUpscaleWithModel, UpscaleModelLoader

    truth = node("CoZSamplePicture").execute("astronaut.png")[0][:, :256, :256]
    source = resize(truth.movedim(-1, 1), 64, 64).clamp(0, 1).movedim(1, -1)
    model = UpscaleModelLoader.execute("coz_lite_x4.safetensors")[0]
    with torch.inference_mode():
        return truth, source, ImageUpscaleWithModel.execute(model, source)[0]


@pytest.mark.parametrize("kernel", ["bicubic", "area"])
def test_the_result_is_truer_than_what_came(node, photograph, kernel):
    truth, source, sr = photograph
    before = sr.clone(), source.clone()
    image, db, share, report = node("CoZConsistency").execute(sr, source, 1.0, 10, kernel).args
    was = agreement(sr.movedim(-1, 1).clamp(0, 1), source.movedim(-1, 1), kernel)
    assert db == agreement(image.movedim(-1, 1), source.movedim(-1, 1), kernel)
    assert db > 60 > was
    assert report == (
        f"agrees with its source to {db:.1f} dB ({was:.1f} dB before), invented {share:.1f} %"
    )
    assert 0 < share < 10
    assert image.min() >= 0
    assert image.max() <= 1
    if kernel == "bicubic":  # the one that made the source
        assert (image - truth).square().mean() < (sr - truth).square().mean()
    assert torch.equal(sr, before[0])
    assert torch.equal(source, before[1])


def test_of_a_flat_picture_nothing_is_invented(node):
    from comfy_extras.nodes_upscale_model import ImageUpscaleWithModel, UpscaleModelLoader

    source = torch.tensor([90, 140, 200]).expand(1, 32, 48, 3) / 255
    model = UpscaleModelLoader.execute("coz_lite_x4.safetensors")[0]
    with torch.inference_mode():
        sr = ImageUpscaleWithModel.execute(model, source)[0]
    assert not torch.equal(sr, sr[:, :1, :1].expand_as(sr))
    report = node("CoZConsistency").execute(sr, source, 0.0, 10)[3]
    assert report.endswith(" dB, invented 0.0 %")


def test_strength_0_only_measures(node, photograph):
    _, source, sr = photograph
    image, db, _, report = node("CoZConsistency").execute(sr, source, 0.0, 10).args
    assert torch.equal(image, sr.clamp(0, 1))
    assert report.startswith(f"agrees with its source to {db:.1f} dB, invented ")


def test_a_batch_is_measured_picture_by_picture(node):
    images, sources = noise(2, 32, 40, 3), noise(2, 8, 10, 3, seed=1)
    image, db, share, report = node("CoZConsistency").execute(images, sources, 0.5, 10).args
    alone = [
        node("CoZConsistency").execute(images[k : k + 1], sources[k : k + 1], 0.5, 10).args
        for k in range(2)
    ]
    assert torch.equal(image, torch.cat([one[0] for one in alone]))
    assert db == min(one[1] for one in alone)
    assert share == max(one[2] for one in alone)
    assert report == "\n".join(one[3] for one in alone)
    shared = node("CoZConsistency").execute(images, sources[:1], 0.5, 10).args
    assert shared[3].splitlines()[0] == report.splitlines()[0]


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (1, 1, 7, 3), (1, 4, 5, 4), (1, 4, 5, 1)])
def test_tiny_pictures_alpha_and_grey(node, shape):
    image, source = noise(*shape), noise(1, 1, 1, 3, seed=1)
    assert node("CoZConsistency").execute(image, source, 1.0, 10)[0].shape == (*shape[:3], 3)
    for shown in node("CoZDetailMap").execute([image], [source]).args[:2]:
        assert shown.shape == (*shape[:3], 3)


@pytest.mark.parametrize(
    ("image", "source", "message"),
    [
        ((1, 8, 8, 3), (1, 32, 32, 3), "source is 32 x 32 pixels and the picture 8 x 8.*Connect"),
        ((3, 8, 8, 3), (2, 4, 4, 3), "2 pictures.*3.*one source for all, or one for each"),
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
    assert first.startswith("agrees with its source to 4")
    assert second.startswith("of its structures: 9")
    assert "of those of 1 to 2 pixels" in second
    assert "of those of 8 to 16 pixels" not in second
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
    assert "result 2: agrees" in figures
    assert "the 2 results differ by" in figures
    own = node("CoZDetailMap").execute([sr, other], [source, source]).args
    assert "each result has a source of its own" in own[2]
    assert (own[1][..., 0] == own[1][..., 2]).all()
    assert own[1].shape == (2, 32, 32, 3)  # each in grey: a mean of different views shows nothing


def test_results_of_other_sizes_are_refused(node):
    with pytest.raises(ValueError, match=r"images .* same size, got 32 x 32, 40 x 32"):
        node("CoZDetailMap").execute(
            [noise(1, 32, 32, 3), noise(1, 32, 40, 3)], [noise(1, 8, 8, 3)]
        )


def test_it_can_be_stopped_between_pictures_and_frames(node, make_chain):
    import comfy.model_management

    pictures = {"image": [noise(2, 8, 8, 3)], "source": [noise(1, 4, 4, 3)]}
    for inputs in (pictures, {"chain": [make_chain()]}):
        comfy.model_management.interrupt_current_processing()
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            node("CoZDetailMap").execute(**inputs)


def test_a_chain_alone_or_two_pictures(node, make_chain):
    image = [noise(1, 8, 8, 3)]
    for inputs in ({}, {"image": image}, {"source": image}, {"image": image, "chain": [1]}):
        told = f"chain alone.* {len(inputs)} are connected: {', '.join(inputs) or 'none'}"
        with pytest.raises(ValueError, match=f"image and source together, or {told}"):
            node("CoZDetailMap").execute(**inputs)


def test_chains_of_other_places_are_refused(node, make_chain):
    with pytest.raises(ValueError, match="chain 2 and chain 1 look at different places"):
        node("CoZDetailMap").execute(chain=[make_chain(), make_chain(center=(0.1, 0.9))])
    with pytest.raises(ValueError, match="look at different places"):
        node("CoZDetailMap").execute(chain=[make_chain(), make_chain(size=80)])


def test_chains_are_compared_in_the_scales_that_all_have(node, make_chain):
    long, short = make_chain(steps=3), make_chain(steps=2)
    other = (*short.frames[:-1], noise(1, 3, 64, 64, seed=9))
    maps, _, figures = node("CoZDetailMap").execute(chain=[long, replace(short, frames=other)]).args
    lines = figures.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "chain 1, 4x", "chain 2, 4x", "4x", "chain 1, 16x", "chain 2, 16x", "16x",
    ]  # fmt: skip
    assert lines[2].endswith("differ by 0.0 % of the range of brightness, at most 0.0 %")
    assert not lines[5].endswith("at most 0.0 %")
    assert maps.shape == (2, 64, 64, 3)


def test_a_chain_without_a_zoom_has_nothing_to_judge(node, make_chain):
    chain = make_chain(steps=0)
    assert node("CoZDetailMap").execute(chain=[chain])[2].startswith("no zoom to judge")


def test_in_the_host(executor, pack):
    """A chain judged, and a list of results taken as one set, all in one prompt."""
    prompt = chain_prompt(steps=2)
    del prompt["scales"]
    prompt |= {
        "judge": {"class_type": "CoZDetailMap", "inputs": {"chain": ["loop", 3]}},
        "size": {
            "class_type": "ImageScale",
            "inputs": {
                "image": ["loop", 1], "upscale_method": "area", "width": 16, "height": 16,
                "crop": "disabled",
            },
        },
        "true": {
            "class_type": "CoZConsistency",
            "inputs": {
                "image": ["loop", 1], "source": ["size", 0], "strength": 1.0, "iterations": 10,
                "kernel": "area",
            },
        },
        "list": {"class_type": "RebatchImages", "inputs": {"images": ["true", 0], "batch_size": 1}},
        "one": {"class_type": "ImageFromBatch",
                "inputs": {"image": ["size", 0], "batch_index": 0, "length": 1}},
        "compare": {
            "class_type": "CoZDetailMap",
            "inputs": {"image": ["list", 0], "source": ["one", 0]},
        },
        "batch": {"class_type": "ImageBatch",
                  "inputs": {"image1": ["judge", 0], "image2": ["compare", 1]}},
        "scales": {"class_type": "PreviewImage", "inputs": {"images": ["batch", 0]}},
    }  # fmt: skip
    host = executor("LRU")
    ran = host.run(prompt)
    assert ran.count("compare") == 1
    # The last text on each node.
    shown = dict(data for event, data in host.server.sent if event == "progress_text")
    assert [line.partition(":")[0] for line in shown["judge"].splitlines()] == ["4x", "16x"]
    assert "against the source photograph" in shown["judge"]
    assert len(shown["true"].splitlines()) == 3
    assert "the 3 results differ by" in shown["compare"]
