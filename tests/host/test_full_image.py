"""Full-Image SR in the host's real executor: whole pictures in tiles, a text for each."""

import math
import re
import sys

import pytest
import torch
import torch.nn.functional as F

from coz.geometry import Window
from coz.resample import resize
from coz.tiles.layout import plan_layout
from coz.tiles.plan import cut_surroundings, cut_tile_view, make_overview, plan_tiles
from tests.support.small_models import NARROW_ENCODER
from tools.host import ROOT
from tools.host.workflow import find_node, read_prompt

from .prompts import TILED, chain_prompt, make_node

PAPER = ROOT / "workflows" / "4 Chain-of-Zoom as in the paper (AR-2).json"
OWN = ROOT / "workflows" / "5 Your own checkpoint.json"
MODEL = "coz_lite_x4_texture.safetensors"
"""Its convolutions look exactly 16 pixels far, so that a tile with its surroundings is exact."""


def as_full(graph, **inputs):
    """A prompt of Chain Loop with Full-Image SR in its place; what it gives is kept."""
    loop = graph[find_node(graph, "CoZChainLoop")]["inputs"] | {"image": ["source", 0]}
    shared = ("image", "backbone", "prompting", "prompt", "seed", "color_fix")
    full = {k: v for k, v in loop.items() if k.split(".")[0] in shared}
    return {k: node for k, node in graph.items() if "Load" in node["class_type"]} | {
        "source": make_node("TestPicture"),
        "full": make_node("CoZFullImage", **full | TILED | inputs),
        "kept": make_node("TestKeep", image=["full", 0], prompts=["full", 1]),
    }


@pytest.fixture
def enlarge(host, keep, give):
    """The picture and the texts that one run gives, and what it told."""

    def run(image, graph=None, **inputs):
        give("TestPicture", "IMAGE", image)
        chain = chain_prompt()
        chain["model"]["inputs"]["model_name"] = MODEL
        run.executed = host.run(graph or as_full(chain, **inputs), "kept")
        run.told = host.told
        kept = keep[-1]
        assert kept["image"].dtype == torch.float32
        assert 0 <= kept["image"].min() <= kept["image"].max() <= 1
        return kept["image"], kept["prompts"]

    return run


@pytest.fixture(scope="module")
def tiny(listed_models, node, load_sd3, coz_files):
    """The files of the paper's workflow in the host's folders; its checkpoint has a narrow VAE."""
    loader = node("CheckpointLoaderSimple")
    vae, whole = load_sd3().vae, loader.load_checkpoint

    def load_checkpoint(self, ckpt_name):
        return *whole(self, ckpt_name)[:2], vae

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "load_checkpoint", load_checkpoint)
        yield


def photograph(node, height, width):
    """A part of a bundled photograph, (1, height, width, 3)."""
    image = node("CoZSamplePicture").execute("astronaut.png")[0]
    return image[:, 60 : 60 + height, 150 : 150 + width].contiguous()


def untiled(node, image, sides=None):
    """The host's own node on the picture, mirrored at its edges; resized to other sides."""
    model = node("UpscaleModelLoader").execute(MODEL)[0]
    mirrored = F.pad(image.movedim(-1, 1), (16, 16, 16, 16), mode="reflect").movedim(1, -1)
    with torch.inference_mode():
        sr = node("ImageUpscaleWithModel").execute(model, mirrored)[0]
    height, width = image.shape[1:3]
    if sides is None:
        return sr[:, 64:-64, 64:-64]
    box = Window(64, 64, 4 * width, 4 * height)
    return resize(sr.movedim(-1, 1), *sides, box=box).movedim(1, -1).clamp(0, 1)


SEAM = 0.5 / 255
"""Half a level of 8 bits."""


def gradient(image, columns):
    """Mean step across each column's left edge."""
    return float((image[:, :, columns] - image[:, :, [c - 1 for c in columns]]).abs().mean())


def test_tiles_show_no_seams(enlarge, node):
    image = photograph(node, 100, 300)
    tiled, texts = enlarge(image, color_fix="none", tile=256)
    whole = untiled(node, image)
    assert tiled.shape == whole.shape == (1, 400, 1200, 3)
    assert texts.split("\n") == ["-"] * len(plan_layout(400, 1200, 256, 128).list_windows())
    assert (tiled - whole).abs().max() < SEAM
    borders = [240, 480, 720, 960]  # of five abutting tiles
    others = [x for x in range(1, 1200) if x not in borders]
    metric = [gradient(picture, borders) / gradient(picture, others) for picture in (tiled, whole)]
    assert metric[0] == pytest.approx(metric[1], rel=0.02)


@pytest.mark.parametrize("scale", [4.0, 2.56, 1.5, 8.0])
def test_any_scale_is_in_register_with_the_picture(enlarge, node, scale):
    image = photograph(node, 90, 130)
    sr, _ = enlarge(image, scale=scale, tile=256, overlap=64)
    assert sr.shape[1:3] == (round(90 * scale), round(130 * scale))
    small = resize(sr.movedim(-1, 1), 90, 130).movedim(1, -1)
    error = {
        shift: (small[:, 10:-10, 10:-10] - image.roll(shift, 2)[:, 10:-10, 10:-10]).square().mean()
        for shift in (-1, 0, 1)
    }
    assert error[0] < 0.3 * min(error[-1], error[1])
    assert -10 * math.log10(error[0]) > 28


@pytest.mark.parametrize(("width", "scale"), [(59, 1.61), (99, 1.5), (51, 3.2)])
def test_rounding_moves_no_pixel_of_the_last_tile(enlarge, node, width, scale):
    """The right edge of these, in pixels of the picture, is a little more than its width."""
    image = photograph(node, 30, width)
    found, _ = enlarge(image, scale=scale, color_fix="none")
    sides = round(30 * scale), round(width * scale)
    assert (found - untiled(node, image, sides)).abs().max() < 1e-5


def test_two_passes_are_one_after_the_other(enlarge, node):
    image = photograph(node, 40, 60)
    once, _ = enlarge(image, tile=128, overlap=32, prompt="a")
    twice, texts = enlarge(image, tile=128, overlap=32, prompt="a", passes=2)
    assert enlarge.executed.count("full.0.0.coz_tiles_1") == 0  # the first pass is kept
    # Its input is invented itself: what is real is still the picture that was given.
    (said,) = (line for line in enlarge.told[-1].split("\n") if line.startswith("pass 2"))
    assert re.match(
        "pass 2: .* tiles. The result of 960 x 640 pixels shows 60 x 40 pixels of the image. It ",
        said,
    )
    again, second = enlarge(once, tile=128, overlap=32, prompt="a")
    assert torch.equal(twice, again)
    assert texts.split("\n") == ["a"] * (2 * 3) + second.split("\n")


def test_an_edited_text_runs_no_upscale_model_again(enlarge, node):
    image = photograph(node, 40, 40)
    first, _ = enlarge(image, prompt="a", seed=1)
    second, texts = enlarge(image, prompt="b", seed=2, tile_prompts="-")
    assert [name for name in enlarge.executed if "tiles" in name] == []
    assert torch.equal(first, second)
    assert texts == "-"


@pytest.mark.parametrize("method", ["adain", "none"])
def test_colour_fix_is_that_of_the_node(enlarge, node, method):
    image = photograph(node, 60, 50)
    found, _ = enlarge(image, color_fix=method)
    view = resize(image.movedim(-1, 1), 240, 200).movedim(1, -1).clamp(0, 1)
    expected = node("CoZColorFix").execute(untiled(node, image), view, method)[0]
    assert torch.allclose(found, expected, rtol=0, atol=1e-6)


def test_consistency_makes_it_true_to_its_source(enlarge, node):
    image = photograph(node, 100, 100)
    enlarge(image, tile=256)
    free = enlarge.told[-1]
    sr, _ = enlarge(image, tile=256, consistency=1.0)
    small = resize(sr.movedim(-1, 1), 100, 100).movedim(1, -1)
    error = -10 * math.log10((small - image).square().mean())
    assert error > 45
    shown = "The result of 400 x 400 pixels shows 100 x 100 pixels of the image."
    assert enlarge.told[-1].startswith(f"pass 1: 4 tiles. {shown} It repeats its input (")
    told = float(enlarge.told[-1].split(" dB")[0].rpartition("(")[2])
    # Of single tiles, at whose edges the neighbour's pixels are missing: a little too low.
    assert error - 6 < told <= error
    assert told > float(free.split(" dB")[0].rpartition("(")[2]) + 5


def test_adaptive_overlap_takes_fewer_tiles_where_it_is_calm(enlarge, node):
    image = photograph(node, 128, 128)
    image[:, :, 64:] = 0.5
    _, dense = enlarge(image, tile=128, overlap=64)
    sr, texts = enlarge(image, tile=128, adaptive_overlap=True)
    assert len(texts.split("\n")) < len(dense.split("\n"))
    # The model sees 16 pixels of the other half.
    assert (sr[:, :, 4 * (64 + 16) :] - 0.5).abs().max() < 0.01


def test_blending_by_detail_changes_only_where_tiles_overlap(enlarge, node):
    image = photograph(node, 64, 96)
    inputs = {"tile": 256, "overlap": 128}
    plain, guided = (
        enlarge(image, color_fix="adain", blend_by_detail=chosen, **inputs)[0]
        for chosen in (False, True)
    )
    # Tiles at 0 and 128; of the 128 pixels that they share, 32 at each side are of one tile.
    changed = (plain != guided).any(-1).any(1)[0].nonzero().flatten()
    assert (changed.min(), changed.max()) == (160, 223)
    apart = [enlarge(image, color_fix="none", blend_by_detail=b, **inputs)[0] for b in (0, 1)]
    assert torch.equal(*apart)


def test_it_says_what_is_coming(enlarge, node):
    image = photograph(node, 40, 60)
    image[:, :, 30:] = 0.5
    _, texts = enlarge(image, tile=64, adaptive_overlap=True, passes=2, scale=2.0)
    # Abutting tiles, whatever the prompts' tiles are.
    assert enlarge.told[0] == "4 + 12 tiles"
    assert "pass 2: 12 tiles" in enlarge.told
    blended = {"tile": 64, "adaptive_overlap": True, "passes": 2, "scale": 2.0}
    _, texts = enlarge(image, color_fix="adain", **blended)
    first, second = enlarge.told[0].removesuffix(" tiles").split(" + ")
    assert int(first) + int(second) == len(texts.split("\n"))
    assert f"pass 2: {second} tiles" in enlarge.told
    # Half of it is calm, in the second pass too.
    assert int(second) < len(plan_layout(160, 240, 64, 32).list_windows())
    enlarge(image, tile_prompts="a\nb\n\u200b\n")
    assert enlarge.told[0] == "tile_prompts has 2 lines for 1 tile: the extra lines are not used"
    assert enlarge.told[1] == f"1 tile\n{enlarge.told[0]}"


def test_alpha_is_dropped_and_grey_repeated(enlarge, node):
    image = photograph(node, 20, 20)
    alpha = torch.cat([image, torch.rand(1, 20, 20, 1)], dim=-1)
    assert torch.equal(enlarge(alpha)[0], enlarge(image)[0])
    grey, _ = enlarge(image[..., :1])
    assert torch.equal(grey, enlarge(image[..., :1].expand(-1, -1, -1, 3))[0])


@pytest.mark.parametrize(
    ("image", "inputs", "message"),
    [
        (torch.full((1, 8, 8, 3), math.nan), {}, "image holds 192 values that are NaN"),
        (torch.zeros(2, 8, 8, 3), {}, "batch of 2 images.*Rebatch Images"),
        (torch.zeros(1, 8, 8, 3), {"tile": 64, "overlap": 64}, "overlap must be smaller than tile"),
        (torch.zeros(1, 8, 8, 3), {"tile": 48}, "tile must be 64 to 4096 pixels, got 48"),
        (torch.zeros(1, 8, 8, 3), {"scale": 1.0}, r"scale must be 1\.5 to 8, got 1"),
        (torch.zeros(1, 8, 8, 3), {"passes": 5}, "passes must be 1 to 4, got 5"),
        (torch.zeros(1, 8, 8, 3), {"consistency": 1.5}, r"consistency must be 0 to 1, got 1\.5"),
        (torch.zeros(1, 3000, 4000, 3), {"passes": 4, "scale": 8.0}, "GB of memory are free"),
    ],
)
def test_bad_input_is_refused(enlarge, image, inputs, message):
    with pytest.raises(RuntimeError, match=message):
        enlarge(image, **inputs)


def test_memory_is_counted_where_the_result_lies(node, mm, monkeypatch):
    monkeypatch.setattr(mm, "intermediate_device", lambda: torch.device("meta"))
    free = {"meta": 0}
    monkeypatch.setattr(mm, "get_free_memory", lambda device: free.get(device.type, 1e12))
    with pytest.raises(ValueError, match=r"0\.0 GB of memory are free"):
        sys.modules[node("CoZFullImage").__module__].require_memory(8, 8, 4.0, 1, False)


@pytest.mark.parametrize(
    ("longest", "warning", "error"),
    [
        (70, "Out of memory: from here on the model enlarges at most 66 x 66 pixels at once", SEAM),
        # 8 pixels of surroundings: not as untiled, and not far from it.
        (
            50,
            "Out of memory: from here on the model sees only 8 pixels around a tile, fewer than",
            0.02,
        ),
    ],
)
def test_out_of_memory_makes_smaller_tiles_and_goes_on(
    enlarge, node, upscale_node, before, longest, warning, error
):
    image = photograph(node, 100, 150)

    def short_of_memory(upscale_model, image):
        if max(image.shape[1:3]) > longest:
            raise torch.OutOfMemoryError("injected")

    enlarge(image, color_fix="none")  # measures how far the model looks
    expected = untiled(node, image)
    before(upscale_node, "execute", short_of_memory)
    found, _ = enlarge(image, tile=400, color_fix="none")
    told = [text for text in enlarge.told if text.startswith(warning)]
    assert len(told) == 1
    assert told[0] in enlarge.told[-1].split("\n")
    assert (found - expected).abs().max() < error


def paper(**inputs):
    graph = read_prompt(PAPER)
    graph[find_node(graph, "CoZLoadSRLoRA")]["inputs"]["vae_encoder_name"] = NARROW_ENCODER
    return as_full(graph, **{"tile": 64, "overlap": 16, "prompting.max_tokens": 4} | inputs)


def test_every_model_is_loaded_once_a_pass(enlarge, node, tiny, mm, caplog):
    caplog.set_level("INFO")
    enlarge(photograph(node, 8, 8), paper())  # for the loaders, which load what they find
    mm.unload_all_models()
    caplog.clear()
    sr, texts = enlarge(photograph(node, 16, 40), paper())
    assert sr.shape == (1, 64, 160, 3)
    assert len(texts.split("\n")) == 3
    loads = [line for line in caplog.messages if line.startswith("Requested to load")]
    # The VLM, the text encoders, the VAE and SD3.
    assert len(set(loads)) == len(loads) == 4, loads
    # An edit of a later phase asks nothing again.
    again, same = enlarge(photograph(node, 16, 40), paper(color_fix="adain"))
    assert [name for name in enlarge.executed if "prompts" in name] == []
    assert same == texts
    assert not torch.equal(again, sr)
    # Given back, the texts give the same picture, and nothing is asked.
    pasted, same = enlarge(photograph(node, 16, 40), paper(tile_prompts=texts, prompt="else"))
    assert torch.equal(pasted, sr)
    assert same == texts


def test_a_line_runs_its_pass_and_the_later_ones(enlarge, node, tiny):
    def run(*lines, **inputs):
        graph = paper(passes=2, scale=2.0, tile_prompts="\n".join(lines), **inputs)
        _, texts = enlarge(photograph(node, 16, 24), graph)
        names = [name.rpartition(".")[2].removeprefix("coz_") for name in enlarge.executed]
        ran = {name for name in names if name.startswith(("prompts_", "tiles_"))}
        return ran, texts.split("\n")

    ran, texts = run("a", "b", "-", prompt="unread")
    assert ran == {"prompts_1", "tiles_1", "prompts_2", "tiles_2"}
    assert texts == ["a", "b", "-"]
    assert enlarge.told[-1].endswith("are trained for 4x a pass")
    assert run("a", "b", "-", prompt="else", seed=1, **{"prompting.max_tokens": 3})[0] == set()
    assert run("a", "b", "c") == ({"prompts_2", "tiles_2"}, ["a", "b", "c"])
    ran, texts = run("a", "", "c", prompt="fur")
    assert ran == {"prompts_2", "tiles_2"}
    assert texts[::2] == ["a", "c"]
    assert texts[1].endswith("fur")
    assert run("a", "", "c", prompt="fur", seed=1)[0] == set()  # at temperature 0
    # Another text beside the model's asks nothing again.
    ran, other = run("a", "", "c", prompt="wool")
    assert ran == {"tiles_2"}
    assert other == ["a", texts[1].removesuffix("fur") + "wool", "c"]


@pytest.mark.parametrize("backbone", ["one-step diffusion", "any checkpoint"])
def test_a_checkpoint_without_text_encoders_is_named(nodes_of, backbone):
    chosen = {"backbone": backbone, "clip": None, "negative": "", "denoise": 0.35}
    sharpener = nodes_of("backbones").make_backbone(chosen)
    with pytest.raises(ValueError, match=r"^clip is empty: the checkpoint holds no text encoder"):
        sharpener.encode("fur")


def test_any_checkpoint_draws_each_tile_s_seed(enlarge, node, tiny, caplog):
    def run(**inputs):
        graph = as_full(read_prompt(OWN), tile=64, overlap=16, **inputs)
        graph["full"]["inputs"] |= {"backbone.sampling_steps": 1, "prompt": "an eye"}
        return enlarge(torch.full((1, 16, 32, 3), 0.5), graph)[0]

    first = run()
    note = "SD3 works best at 1024 pixels, but a tile has 64 x 64: raise tile"
    assert caplog.messages.count(note) == 1
    assert enlarge.told[-1].endswith(note)
    # Of a plain picture and one text, only the seeds of the tiles are not the same.
    assert not torch.equal(first[:, :, :48], first[:, :, -48:])
    assert not torch.equal(run(seed=1), first)
    assert [name for name in enlarge.executed if "prompts" in name] == []


@pytest.mark.parametrize("limit", [None, 64])
def test_tiles_that_overlap_start_from_the_same_noise(
    enlarge, node, nodes_of, tiny, before, monkeypatch, limit
):
    import comfy.sample

    drawn = []

    def draw(model, noise, *args, **kwargs):
        drawn.append(noise)
        if limit and noise.shape[-1] * 8 > limit:
            raise torch.OutOfMemoryError("injected")

    before(comfy.sample, "sample", draw)
    monkeypatch.setattr(nodes_of("full_image.tile_upscaler"), "MIN_PART_RESULT_PIXELS", 64)
    graph = as_full(read_prompt(OWN), tile=128 if limit else 64, overlap=16)
    graph["full"]["inputs"] |= {"backbone.sampling_steps": 1, "prompt": f"an eye {limit}"}
    enlarge(photograph(node, 16, 32), graph)
    if limit:
        del drawn[0]  # of the tile that was too large
    # Tiles of 64 pixels at 0, 48 and 64 of 128: latent pixels 0 to 8, 6 to 14 and 8 to 16.
    left, middle, right = drawn
    assert torch.equal(left[..., 6:], middle[..., :2])
    assert torch.equal(middle[..., 2:], right[..., :6])
    assert not torch.equal(left, right)


def test_one_tile_is_the_step_itself(enlarge, node, tiny):
    image = photograph(node, 16, 24)
    prompt = paper(tile=128, prompt="an eye", color_fix="none")
    full = prompt["full"]["inputs"]
    for name in [name for name in full if name.startswith("prompting.")]:
        del full[name]
    full["prompting"] = "text"
    found, texts = enlarge(image, prompt)
    assert texts == "an eye"
    text = {"clip": full["backbone.clip"], "prompt": "an eye", "t5_tokens": 512}
    prompt["text"] = make_node("CoZEncodePrompt", **text)
    given = {"model": full["backbone.model"], "vae": full["backbone.vae"], "positive": ["text", 0]}
    prompt["step"] = make_node("CoZSRStep", image=["source", 0], latent_shift="auto", **given)
    prompt["kept"]["inputs"] = {"image": ["step", 0], "prompts": ""}
    prompt["source"].pop("is_changed")  # which the host writes there
    enlarged = resize(image.movedim(-1, 1), 64, 96).movedim(1, -1).clamp(0, 1)
    assert torch.equal(found, enlarge(enlarged, prompt)[0])


def test_the_wider_view_is_what_the_context_says(enlarge, node, tiny, before):
    seen = []
    extractor = node("CoZPromptExtractor")
    before(extractor, "execute", lambda vlm, image, *args: seen.append((image, args[-1])))
    image = photograph(node, 16, 28)
    source = image.movedim(-1, 1)
    layout = plan_tiles(16, 28, 4, 64, 16)
    windows = layout.list_windows()
    assert len(windows) == 2
    expected = {
        "previous scale": [cut_surroundings(source, layout, window) for window in windows],
        "original image": [make_overview(source).clamp(0, 1)] * 2,
        "none": [None] * 2,
    }
    for context, views in expected.items():
        seen.clear()
        graph = paper(**{"prompting.context": context})
        graph["kept"]["inputs"]["image"] = ["source", 0]
        enlarge(image, graph)
        for window, view, (zoomed, wider) in zip(windows, views, seen, strict=True):
            tile = cut_tile_view(source, layout, window).movedim(1, -1).clamp(0, 1)
            assert torch.equal(zoomed, tile)
            assert wider is None if view is None else torch.equal(wider, view.movedim(1, -1))


def test_an_interrupt_ends_it_between_tiles(host, keep, give, node, upscale_node, mm, before):
    give("TestPicture", "IMAGE", photograph(node, 100, 100))
    calls = []

    def interrupt(upscale_model, image):
        calls.append(1)
        mm.interrupt_current_processing(len(calls) == 2)

    before(upscale_node, "execute", interrupt)
    host.run(as_full(chain_prompt(), tile=128, overlap=32), "kept")
    assert "execution_interrupted" in [event for event, _ in host.server.sent]
    assert len(calls) == 2
    assert keep == []
    host.run(as_full(chain_prompt(), tile=128, overlap=32), "kept")
    assert keep[0]["image"].shape == (1, 400, 400, 3)
