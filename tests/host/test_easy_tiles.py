"""Full-Image SR: tiles without detail are enlarged without the backbone."""

import math

import pytest
import torch
import torch.nn.functional as F

from coz.resample import resize
from coz.tiles.complexity import find_easy_tiles, rate_complexity
from coz.tiles.plan import plan_tiles
from tests.support.images import noise

from .prompts import as_full_image, chain_prompt, make_node

TILE, OVERLAP = 64, 16
HALF_LEVEL = 0.5 / 255


@pytest.fixture(scope="module")
def photograph(node):
    """A part of a bundled photograph: night sky above, towers and smoke below, (1, 112, 96, 3)."""
    return node("CoZSamplePicture").execute("rocket.jpg")[0][:, 288:400, 208:304].contiguous()


@pytest.fixture
def enlarge(host, keeper, give, own_prompt, before):
    """Runs Full-Image SR with "any checkpoint" and tiles of 64 pixels: its image, texts and map.

    ``enlarge.calls`` counts the tiles that were sampled, ``enlarge.told`` is what the node said.
    """
    import comfy.sample

    kept = keeper("TestKept", {"image": "IMAGE", "prompts": "STRING", "complexity": "IMAGE"})

    def count(*arguments, **options):
        run.calls += 1

    def run(image, prompt=None, **inputs):
        give("TestPicture", "IMAGE", image)
        chosen = {"control_net": None, "sampling_steps": 1}
        tiles = {"tile": TILE, "overlap": OVERLAP} | inputs
        prompt = as_full_image(prompt or own_prompt(backbone=chosen), **tiles)
        prompt["source"] = make_node("TestPicture")
        links = {name: ["loop", k] for k, name in enumerate(("image", "prompts", "complexity"))}
        prompt["scales"] = make_node("TestKept", **links)
        run.calls = 0
        host.run(prompt)
        run.told = host.told
        return kept[-1]["image"], kept[-1]["prompts"], kept[-1]["complexity"]

    before(comfy.sample, "sample", count)
    return run


def test_half_a_sky_takes_half_the_model_calls(enlarge, photograph):
    photograph = photograph[:, :, :48]
    whole, texts, _ = enlarge(photograph, color_fix="wavelet")
    count = enlarge.calls
    assert texts == "\n".join(["fur"] * count)
    assert torch.equal(enlarge(photograph, color_fix="wavelet", easy_tiles="off")[0], whole)
    assert enlarge.calls == 0  # cached
    mixed, texts, _ = enlarge(photograph, color_fix="wavelet", easy_tiles="enlarge")
    assert enlarge.calls <= 0.55 * count
    said = f"{enlarge.calls} of {count} tiles by the model"
    assert enlarge.told[0] == said
    shown = "The result of 192 x 448 pixels shows 48 x 112 pixels of the image."
    assert enlarge.told[-1].startswith(f"pass 1: {said}. {shown} ")

    layout = plan_tiles(112, 48, 4.0, TILE, OVERLAP)
    easy = find_easy_tiles(rate_complexity(photograph.movedim(-1, 1)), layout, 0.2)
    assert len(easy) == count - enlarge.calls
    lines = texts.split("\n")
    assert [i for i, line in enumerate(lines) if line == "-"] == easy
    assert set(lines) == {"fur", "-"}

    # Tiles by the model are as they were where no other tile reaches.
    for i in set(range(count)) - set(easy):
        left, top = (int(place) for place in layout.list_windows()[i][:2])
        x, y = (slice(start + OVERLAP, start + TILE - OVERLAP) for start in (left, top))
        assert torch.equal(mixed[:, y, x], whole[:, y, x])


def invent(
    model, vae, positive, negative, view, steps, cfg, sampler, scheduler, denoise, seed, draw
):
    """What a model does: sharper edges, a grain that each tile has for itself, and a little brighter."""
    blurred = F.avg_pool2d(F.pad(view, (2, 2, 2, 2), mode="replicate"), 5, 1)
    grain = torch.randn(view.shape, generator=torch.Generator().manual_seed(seed)) * 0.005
    return (2 * view - blurred + grain + 4 / 255).clamp(0, 1).movedim(1, -1)


def test_borders_between_kinds_show_no_step(enlarge, photograph, nodes_of, monkeypatch):
    monkeypatch.setattr(nodes_of("backbones.any_checkpoint"), "refine", invent)
    layout = plan_tiles(112, 96, 4.0, 256, 128)
    easy = find_easy_tiles(rate_complexity(photograph.movedim(-1, 1)), layout, 0.2)
    mixed, *_ = enlarge(photograph, easy_tiles="enlarge", tile=256, overlap=128)
    whole, *_ = enlarge(photograph, tile=256, overlap=128)
    cores, columns = layout.list_cores(), len(layout.rows[0].xs)
    excess = []
    for i, core in enumerate(cores[:-columns]):
        if (i in easy) == (i + columns in easy):
            continue
        line = int(core.y + core.height)
        across = slice(math.ceil(core.x), math.floor(core.x + core.width))
        sizes = []
        for image in (mixed, whole):
            step = image[0, line, across] - image[0, line - 1, across]
            # Of pixels, and of all together.
            sizes.append([step.abs().mean(), step.mean(0).abs().mean()])
        excess.append(torch.tensor(sizes[0]) - torch.tensor(sizes[1]))
    assert len(excess) == 2
    assert (mixed - whole).mean() < -1 / 255  # easy tiles are not brighter
    assert torch.stack(excess).max() <= HALF_LEVEL


def test_a_tile_without_detail_is_the_enlarged_view(enlarge, photograph):
    image, texts, _ = enlarge(photograph, easy_tiles="enlarge", easy_below=1.0)
    assert enlarge.calls == 0
    assert enlarge.told[0].startswith("0 of ")
    assert set(texts.split("\n")) == {"-"}
    expected = resize(photograph.movedim(-1, 1), 448, 384).clamp(0, 1).movedim(1, -1)
    assert (image - expected).abs().max() < 1e-5


def test_the_built_in_model_can_do_them(enlarge, photograph):
    tiles = {"tile": 256, "overlap": 64, "easy_below": 1.0}  # with all pixels that the model sees
    image, *_ = enlarge(photograph, easy_tiles="built-in model", **tiles)
    assert enlarge.calls == 0
    expected, *_ = enlarge(photograph, chain_prompt(), color_fix="none", tile=512)
    assert (image - expected).abs().max() < HALF_LEVEL
    plain, *_ = enlarge(photograph, easy_tiles="enlarge", **tiles)
    assert (image - plain).abs().max() > 10 * HALF_LEVEL


def test_no_easy_tile_leaves_the_bytes(enlarge, photograph):
    small = photograph[:, 40:80, :40]
    before, *_ = enlarge(small)
    again, *_ = enlarge(small, easy_tiles="enlarge", easy_below=0.0)
    assert enlarge.calls == 0  # the same pass is cached
    assert torch.equal(again, before)


@pytest.mark.parametrize(("value", "said"), [(0.3, "0 of 1 tiles by the model"), (None, "1 tile")])
def test_an_image_of_one_tile(enlarge, value, said):
    image = noise(1, 16, 16, 3)
    enlarge(image if value is None else torch.full_like(image, value), easy_tiles="enlarge")
    assert enlarge.told[0] == said
    assert enlarge.calls == (value is None)


def test_upscale_models_have_no_easy_tiles(enlarge, photograph):
    enlarge(photograph[:, :32, :32], chain_prompt(), easy_tiles="enlarge", tile=128)
    told = 'easy_tiles has no effect with the backbone "upscale model"'
    assert enlarge.told[0] == told
    assert enlarge.told[1] == f"1 tile\n{told}"


def test_the_complexity_is_shown(enlarge, photograph):
    *_, shown = enlarge(photograph, easy_tiles="enlarge", easy_below=1.0)
    assert shown.shape == (1, 112, 96, 3)
    ratings = torch.tensor(rate_complexity(photograph.movedim(-1, 1)))
    assert torch.equal(shown[0, 8::16, 8::16, 0], ratings)
    assert torch.equal(shown[..., 0], shown[..., 2])


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_a_linked_threshold_beyond_its_limits_is_named(enlarge, define, own_prompt, value):
    define("TestValue", lambda self: (value,), {}, ("FLOAT",))
    prompt = own_prompt(backbone={"control_net": None}) | {"value": make_node("TestValue")}
    with pytest.raises(RuntimeError, match=f"easy_below must be 0 to 1, got {value:g}"):
        enlarge(torch.zeros(1, 16, 16, 3), prompt, easy_below=["value", 0])


def test_easy_tiles_ask_for_no_text(nodes_of):
    plan = nodes_of("full_image.plan")
    layouts = [plan_tiles(16, 96, 4.0, 64, 0), plan_tiles(16, 32, 4.0, 64, 0)]
    easy = [[0, 4], [1]]
    lines = plan.plan_pass_texts(layouts, object(), "fur", "a\nb", easy)
    assert lines == [["-", "b", "", "", "-", ""], ["", "-"]]
    assert plan.describe_work([6, 2], lines, easy) == "5 of 8 tiles by the model, 3 + 1 prompts"
