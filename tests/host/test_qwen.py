"""CoZ Load Prompt Extractor in the host, with recorded results of transformers and peft as oracles."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.oracles.qwen import ANSWER, PICTURE, PLAIN, QUANTISED, STOCK_PICTURES, WORDS, quantise
from tests.oracles.qwen import draw_picture as picture
from tests.oracles.qwen import draw_pictures as images
from tests.oracles.qwen import write_pictures_chat as chat
from tests.oracles.record import read as read_recorded
from tests.support.random_qwen import (
    draw_qwen25vl,
    name_as_published,
    save_prompt_lora,
    save_shards,
)
from tests.support.random_weights import read_layouts
from tools.convert import convert

MODEL = "qwen2.5-vl.safetensors"
ADAPTER, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def as_image(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).float()[None] / 255


@pytest.fixture(scope="module")
def weights():
    return draw_qwen25vl()


@pytest.fixture(scope="module")
def folder(model_folder, weights):
    """A folder of the host's text encoders and LoRAs, with the network and its adapter."""
    folder = model_folder("text_encoders", "loras")
    save_shards(weights, folder / "hf")
    save_file(weights, folder / MODEL)
    save_prompt_lora(read_layouts()["qwen25vl"], folder)
    return folder


@pytest.fixture(scope="module")
def load(folder, nodes_of):
    def run(*args):
        with torch.inference_mode():
            return nodes_of("load.prompt_extractor").CoZLoadPromptExtractor.execute(*args)[0]

    return run


@pytest.fixture(scope="module")
def vlm(load):
    return load(MODEL)


@pytest.fixture(scope="module")
def expected(weights):
    """The recorded tokens of transformers, and the logits of each."""
    recorded = read_recorded("qwen")

    def run(case, words=weights[WORDS]):
        return recorded[f"{case} tokens"].tolist(), recorded[f"{case} states"] @ words.T

    return run


def generate(vlm, tokens, penalty=1.0, **options):
    """The host's terms for transformers' do_sample=False."""
    greedy = {"top_k": 1, "temperature": 1.0, "top_p": 1.0, "min_p": 0.0, "seed": 0}
    with torch.inference_mode():
        return vlm.generate(
            tokens,
            **{"do_sample": True, "max_length": ANSWER, **greedy, **options},
            repetition_penalty=penalty,
        )


def answer(vlm, pictures, penalty=1.0, length=ANSWER):
    """The tokens that the host generates, and the logits of each."""
    network, seen = vlm.cond_stage_model.qwen25vl.transformer, []

    def sample_token(logits, *args, **kwargs):
        seen.append(logits.clone())
        return type(network).sample_token(network, logits, *args, **kwargs)

    tokens = vlm.tokenize(chat(len(pictures)), images=[as_image(p) for p in pictures])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "sample_token", sample_token)
        return generate(vlm, tokens, penalty, max_length=length), torch.cat(seen)


def assert_same(result, expected, bar=1e-4):
    (tokens, logits), (expected_tokens, expected_logits) = result, expected
    assert tokens == expected_tokens
    assert (logits - expected_logits).abs().max() / expected_logits.abs().max() < bar


@pytest.mark.parametrize(("pictures", "penalty"), PLAIN)
def test_tokens_and_logits_are_those_of_transformers(vlm, expected, pictures, penalty):
    result = answer(vlm, images(pictures), penalty)
    assert_same(result, expected(f"plain {pictures} {penalty}"))
    if penalty == 1:
        assert len(set(result[0])) > ANSWER // 2
    else:
        assert penalty == 1.05 or result[0] != answer(vlm, images(pictures))[0]


def test_the_extractor_asks_as_transformers_do(vlm, expected, nodes_of, monkeypatch):
    answers, (wider, zoomed) = [], images(2)
    monkeypatch.setattr(vlm, "decode", lambda ids: answers.append(ids) or "")
    extract = nodes_of("step.prompt_extractor").CoZPromptExtractor.execute
    with torch.inference_mode():
        extract(vlm, as_image(zoomed), "", "", ANSWER, previous_image=as_image(wider))
    assert answers == [expected("extractor")[0]]


def test_each_picture_and_its_place_count(vlm):
    first, second = images(2)
    pairs = [first, second], [second, first], [np.ascontiguousarray(first[::-1]), second]
    assert len({tuple(answer(vlm, pair)[0]) for pair in pairs}) == 3


def test_a_prompt_lora_counts_as_in_peft(vlm, load, expected):
    assert_same(answer(load(MODEL, ADAPTER), images(2), 1.05), expected("lora"))
    # Neither changes the other model, whatever was loaded last.
    assert_same(answer(vlm, images(2), 1.05), expected("plain 2 1.05"))


def test_strength_is_a_share_of_the_change(load, expected):
    assert_same(answer(load(MODEL, ADAPTER, 0.5), images(1)), expected("half lora"))
    assert_same(answer(load(MODEL, ADAPTER, 0.0), images(1)), expected("plain 1 1.0"))


def test_the_vlm_stays_as_it_was_below_a_lora(vlm, folder, nodes_of):
    before = answer(vlm, images(1))[0]
    changed = nodes_of("host.lora").patch_clip(vlm, folder / ADAPTER, 1.0)
    assert answer(changed, images(1))[0] != before
    assert not vlm.patcher.patches
    assert answer(vlm, images(1))[0] == before


def test_a_converted_prompt_lora_here_and_in_the_stock_loader(node, vlm, load, folder):
    name = "converted_prompt_lora.safetensors"
    convert(folder / ADAPTER, folder / name, None, None)
    expected, _ = answer(load(MODEL, ADAPTER), images(1))
    assert answer(load(MODEL, name), images(1))[0] == expected
    _, stock = node("LoraLoader")().load_lora(None, vlm, name, 0, 1.0)
    assert answer(stock, images(1))[0] == expected


def test_hugging_face_shards(vlm, load, folder):
    names = sorted(path.name for path in (folder / "hf").glob("*.safetensors"))
    assert len(names) == 2
    for name in names:
        assert_same(answer(load(f"hf/{name}"), images(2)), answer(vlm, images(2)))


def test_shards_without_their_index(nodes_of, tmp_path):
    names = [f"qwen-{i:05}-of-00003.safetensors" for i in (1, 2, 3)]
    for name in names[::2]:
        (tmp_path / name).touch()
    shards = nodes_of("load.prompt_extractor").find_shards
    with pytest.raises(ValueError, match=f"expected 3 files .* found no {names[1]} in "):
        shards(tmp_path / names[0])
    (tmp_path / names[1]).touch()
    assert [path.name for path in shards(tmp_path / names[0])] == names


def test_an_index_names_the_shards_that_are_missing(nodes_of, folder, tmp_path):
    shards = nodes_of("load.prompt_extractor").find_shards
    first, second = sorted((folder / "hf").glob("*.safetensors"))
    index = shutil.copy(folder / "hf" / "model.safetensors.index.json", tmp_path)
    shutil.copy(first, tmp_path)
    with pytest.raises(ValueError, match=f"{first.name}: .* found no {second.name} in .*Qwen/"):
        shards(tmp_path / first.name)
    # Another model in the same folder has nothing to do with it.
    (tmp_path / "other.safetensors").touch()
    assert shards(tmp_path / "other.safetensors") == [tmp_path / "other.safetensors"]
    Path(index).write_text("[]")
    with pytest.raises(ValueError, match=r"index.json: .* download it again"):
        shards(tmp_path / first.name)


@pytest.mark.parametrize("is_older", [True, False])
def test_usual_namings_and_a_stored_output_layer(vlm, load, weights, folder, is_older):
    named = name_as_published(weights) if is_older else weights
    renamed = {key: weight.half() for key, weight in named.items()}
    renamed["lm_head.weight"] = torch.zeros(1)
    save_file(renamed, folder / "half.safetensors")
    loaded = load("half.safetensors")
    state = loaded.cond_stage_model.state_dict()
    assert {state[key].dtype for key in state if ".layers." in key} == {torch.float16}
    # 2e-2: half precision keeps 11 bits of each weight; the pictures pass through 11 layers
    logits, plain = (answer(model, images(1), 1.0, 1)[1] for model in (loaded, vlm))
    assert (logits - plain).abs().max() / plain.abs().max() < 2e-2


# The host multiplies int8 by activations that it rounds to int8 as well.
@pytest.mark.parametrize(("kind", "bar"), [*zip(QUANTISED, (1e-4, 1e-4, 0.1), strict=True)])
def test_quantised_weights(load, weights, expected, folder, kind, bar):
    stored, meant = quantise(weights, kind)
    save_file(stored, folder / "small.safetensors")
    loaded = load("small.safetensors")
    assert_same(answer(loaded, images(2), 1.05, 3), expected(kind, meant[WORDS]), bar)

    plain, adapted = (expected(f"{kind} {n}", meant[WORDS])[1] for n in ("first", "lora"))
    _, result = answer(load("small.safetensors", ADAPTER), images(2), 1.0, 1)
    # Rounded to 8 bits once more, by the host's patcher.
    assert (result - adapted).norm() < 0.5 * (plain - adapted).norm()


def test_the_stock_node_answers(node, vlm, expected):
    batch = torch.cat([as_image(picture(*each)) for each in STOCK_PICTURES])
    with torch.inference_mode():
        run = node("TextGenerate").execute
        text = run(vlm, "What?", ANSWER, {"sampling_mode": "off"}, image=batch)[0]
    assert text == vlm.decode(expected("stock")[0])
    sampling = {"sampling_mode": "on", "temperature": 0.7, "top_k": 64, "top_p": 0.95}
    sampling |= {"min_p": 0.05, "repetition_penalty": 1.05, "seed": 3, "presence_penalty": 0.5}
    with torch.inference_mode():
        once, again = (run(vlm, "What?", ANSWER, sampling, image=batch)[0] for _ in range(2))
    assert once == again != text


PAIR = torch.rand(2, 28, 56, 3)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("plain (a:1.2) text", {"llama_template": "<|im_start|>user\n{}", "image": None}),
        (chat(0), {"min_length": 1, "thinking": False, "video": None, "audio": None}),
        (chat(2), {"image": PAIR}),
        (chat(2), {"images": list(PAIR.split(1))}),
        (chat(1), {"image": PAIR}),
        pytest.param(
            f"{PICTURE}no template",
            {"skip_template": True, "image": PAIR[:1]},
            marks=pytest.mark.since("0.30"),  # so long has the host's been ignoring it
        ),
    ],
    ids=["template", "no picture", "batch", "list", "one place for two", "no template"],
)
def test_tokens_are_made_as_by_the_hosts_own_tokenizers(vlm, text, options):
    from comfy.text_encoders.qwen3vl import tokenizer

    (ours,), (other,) = (
        next(iter(t.tokenize_with_weights(text, **options).values()))
        for t in (vlm.tokenizer, tokenizer("qwen3vl_4b")())
    )
    if "llama_template" in options:  # Qwen3's convention alone: an empty thought
        other = other[: len(ours)]
    assert len(ours) == len(other)
    for (token, weight), (expected, expected_weight) in zip(ours, other, strict=True):
        assert weight == expected_weight
        if isinstance(expected, dict):
            assert torch.equal(token["data"], expected["data"])
            token, expected = ({**t, "data": 0} for t in (token, expected))
        assert token == expected


@pytest.mark.parametrize(
    "text",
    ["(a:1.2) \\( \\\\)", "an embedding:easynegative, two", "{} {0} {x}", "zoom 放大 \n\t x"],
)
def test_text_is_taken_literally(vlm, text):
    for whole in (text, f"<|im_start|>user\n{text}"):
        (row,) = vlm.tokenize(whole)["qwen25vl"]
        template = (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
        )
        tokenize = vlm.tokenizer.qwen25vl.tokenizer
        expected = tokenize(template if whole == text else whole)["input_ids"]
        assert [token for token, _ in row] == expected


@pytest.mark.parametrize(
    "options", [{"images": None}, {"images": {}}, {"image": None, "mtp": 3, "later": 1}]
)
def test_what_newer_hosts_hand_to_the_tokenizer_without_an_image(vlm, options):
    assert vlm.tokenize("What?", **options) == vlm.tokenize("What?")


@pytest.mark.parametrize(
    ("prompt", "system"),
    [("You are {a} pirate {}", "You are {a} pirate {}"), ("", None), (None, None)],
)
def test_a_system_prompt_is_the_system_turn(vlm, prompt, system):
    system = system or "You are a helpful assistant."
    text = (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{PICTURE}What {{}}?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    image = as_image(picture(28, 28))
    (row,) = vlm.tokenize("What {}?", image=image, system_prompt=prompt)["qwen25vl"]
    found = [151655 if isinstance(token, dict) else token for token, _ in row]
    assert found == vlm.tokenizer.qwen25vl.tokenizer(text)["input_ids"]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (chat(0), {}),
        ("What?", {"skip_template": True}),
        ("What?", {"llama_template": "<|im_start|>user\n{}"}),
    ],
)
def test_a_conversation_of_ones_own_keeps_its_system_turn(vlm, text, options):
    assert vlm.tokenize(text, system_prompt="Pirate", **options) == vlm.tokenize(text, **options)


def test_keywords_of_newer_hosts_are_accepted_and_not_passed_on(vlm, monkeypatch):
    from comfy.sd1_clip import SD1ClipModel

    tokens = vlm.tokenize(chat(1), images=[as_image(images(1)[0])])
    expected = generate(vlm, tokens, 1.05)

    def generate_of_0_37(encoder, tokens, **options):
        return getattr(encoder, encoder.clip).generate(tokens, **options, mtp=True, later=None)

    monkeypatch.setattr(SD1ClipModel, "generate", generate_of_0_37)
    assert generate(vlm, tokens, 1.05) == expected


def test_placed_pictures_of_any_float_type_and_channels(vlm):
    first, second = (as_image(p) for p in images(2))
    places = iter([first.double(), torch.cat([second, second[..., :1]], -1)])
    row = [
        ({"type": "image", "data": next(places), "original_type": "image"}, w)
        if t == 151655
        else (t, w)
        for t, w in vlm.tokenize(chat(2))["qwen25vl"][0]
    ]
    assert generate(vlm, {"qwen25vl": [row]}) == answer(vlm, images(2))[0]


def test_video_and_audio_are_refused(vlm):
    for name in ("video", "audio"):
        with pytest.raises(ValueError, match="connect image, not video or audio"):
            vlm.tokenize("What?", **{name: torch.rand(1, 28, 28, 3)})


def test_presence_penalty_is_about_the_answer_alone(vlm, before):
    tokens = vlm.tokenize(chat(1), images=[as_image(images(1)[0])])
    seen = []
    network = type(vlm.cond_stage_model.qwen25vl.transformer)
    before(network, "sample_token", lambda *args, **_: seen.append(args[7]))
    generate(vlm, tokens, max_length=2, presence_penalty=1.0)
    generate(vlm, tokens, 1.05, max_length=1)
    prompt = [151655 if isinstance(t, dict) else t for t, _ in tokens["qwen25vl"][0]]
    assert [len(history) for history in seen] == [0, 1, len(prompt)]
    assert seen[-1] == prompt


def test_an_interrupted_answer_leaves_a_usable_vlm(vlm, mm, before, monkeypatch):
    expected = answer(vlm, images(1))[0]
    tokens = vlm.tokenize(chat(1), images=[as_image(images(1)[0])])
    progress, steps = [], []

    def tell(value, total, *_, **__):
        progress.append((value, total))

    def interrupt(*args, **kwargs):
        steps.append(len(steps))
        mm.interrupt_current_processing(len(steps) == 3)

    monkeypatch.setattr("comfy.utils.PROGRESS_BAR_HOOK", tell)
    generate(vlm, tokens)
    assert (progress[0], progress[-1]) == ((1, ANSWER), (ANSWER, ANSWER))
    before(type(vlm.cond_stage_model.qwen25vl.transformer), "sample_token", interrupt)
    with pytest.raises(mm.InterruptProcessingException):
        generate(vlm, tokens)
    assert len(steps) == 3
    assert answer(vlm, images(1))[0] == expected


def test_the_hosts_device_and_delegate_factory(vlm, node, load):
    expected = answer(vlm, images(1))[0]
    assert answer(node("SelectCLIPDevice").execute(vlm, "cpu")[0], images(1))[0] == expected
    factory, arguments = vlm.patcher.cached_patcher_init
    other = factory(*arguments, disable_dynamic=True, later=None)
    assert other.model is not vlm.patcher.model
    assert other.model.state_dict().keys() == vlm.patcher.model.state_dict().keys()


TEXT = "model.language_model"


@pytest.mark.parametrize(
    ("left_out", "added", "message"),
    [
        (".visual.", {}, r"visual weights .* language model alone.*Qwen/Qwen2\.5-VL-3B-Instruct"),
        ("", {f"{TEXT}.embed_tokens.weight": (1, 3584)}, r"found the 7B model \(3584 wide\)"),
        ("layers.1.mlp.up_proj", {}, r"none named model\.layers\.1\.mlp\.up_proj\.weight: it is incomplete"),
        ("", {"model.visual.merger.ln_q.weight": (3,)},
         r"visual\.merger\.ln_q\.weight to be \(160,\), but found \(3,\)"),
        ("", {f"{TEXT}.layers.0.mlp.up_proj.weight_scale": (1,)},
         r"quantized for ComfyUI, but found .*up_proj\.weight_scale of another"),
        ("", {"model.visual.deepstack_merger_list.0.norm.weight": (1,)},
         "found Qwen3-VL; load it with ComfyUI's own Load CLIP"),
        (".", {"a": (1,)}, "expected Qwen2.5-VL-3B, but found a; take the files of"),
    ],
    ids=["no vision", "7B", "incomplete", "another shape", "scaled elsewhere", "Qwen3", "none"],
)  # fmt: skip
def test_other_models_are_refused(load, weights, folder, left_out, added, message):
    kept = {k: w for k, w in weights.items() if not left_out or left_out not in k}
    zeros = {name: torch.zeros(shape) for name, shape in added.items()}
    save_file(kept | zeros, folder / "other.safetensors")
    with pytest.raises(ValueError, match=f"^other.safetensors: .*{message}"):
        load("other.safetensors")


def test_damaged_files_are_refused(load, folder):
    whole = (folder / MODEL).read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.safetensors: .* damaged or cut short"):
        load("cut.safetensors")


SHAPES = read_layouts()["qwen25vl"]
DEEPER = SHAPES | {key.replace(".layers.1.", ".layers.2."): shape for key, shape in SHAPES.items()}
SHALLOWER = {key: shape for key, shape in SHAPES.items() if ".layers.1." not in key}
NARROWER = {key: [128 if n == 256 else n for n in shape] for key, shape in SHAPES.items()}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (DEEPER, r"7 of its 21 layers are not found in vlm.* of 3 blocks, and vlm has 2"),
        (SHALLOWER, r"0 of its 7 layers are not found in vlm.* of 1 blocks, and vlm has 2"),
        (NARROWER, r"layers\.0\.\S+ is \d+ x \d+, but in vlm it is \d+ x \d+"),
    ],
    ids=["deeper", "shallower", "narrower"],
)
def test_a_lora_of_another_model(vlm, nodes_of, tmp_path, shapes, message):
    save_prompt_lora(shapes, tmp_path)
    with pytest.raises(ValueError, match=f"^{ADAPTER} does not fit vlm: .*{message}"):
        nodes_of("host.lora").patch_clip(vlm, tmp_path / ADAPTER, 1.0)


def test_a_lora_of_some_layers_fits(vlm, nodes_of, folder, tmp_path):
    weights = {k: w for k, w in load_file(folder / ADAPTER).items() if ".layers.1." in k}
    save_file(weights, tmp_path / ADAPTER)
    shutil.copy(folder / CONFIG, tmp_path)
    assert len(nodes_of("host.lora").patch_clip(vlm, tmp_path / ADAPTER, 1.0).patcher.patches) == 7


def test_missing_files_are_named_with_link_and_folder(nodes_of, folder):
    validate = nodes_of("load.prompt_extractor").CoZLoadPromptExtractor.validate_inputs
    assert validate(MODEL, ADAPTER) is True
    assert validate(None, None) is True
    answer = validate("absent.safetensors", "none")
    assert answer.startswith("absent.safetensors is not in models/text_encoders. Put the file")
    assert answer.endswith("https://huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct")
    answer = validate(MODEL, "absent.safetensors")
    assert answer.startswith("absent.safetensors is not in models/loras. Put the file there")
    assert "adapter_config.json" in answer


def test_likely_files_come_first(nodes_of, folder):
    (folder / "a.safetensors").touch()
    schema = nodes_of("load.prompt_extractor").CoZLoadPromptExtractor.define_schema()
    (folder / "a.safetensors").unlink()
    vlm_name, lora_name, _ = schema.inputs
    assert vlm_name.options.index(MODEL) < vlm_name.options.index("a.safetensors")
    assert lora_name.options[0] == "none"
    assert "adapter" in lora_name.options[1] or "coz" in lora_name.options[1].lower()


def test_a_host_whose_classes_moved(nodes_of, folder, monkeypatch):
    loader, qwen = nodes_of("load.prompt_extractor"), nodes_of("host.qwen")
    message = r"has changed its Qwen classes.*pack \d+\.\d+\.\d+, ComfyUI \d+\.\d+\.\d+: "
    needed = {"position_ids", "gone"}
    monkeypatch.setitem(qwen.REQUIRED_PARAMETERS, qwen.llama.BaseGenerate.generate, needed)
    with pytest.raises(RuntimeError, match=message + ".*generate no longer takes gone"):
        loader.load_qwen([folder / MODEL])
    monkeypatch.undo()
    monkeypatch.delattr(qwen.qwen_vl, "qwen2vl_mrope_position_ids")
    with pytest.raises(RuntimeError, match=message):
        loader.load_qwen([folder / MODEL])
