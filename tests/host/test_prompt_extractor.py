"""VLM Prompt Extractor on the host's own tokenizers and on its own networks, made tiny."""

import importlib
import inspect
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from coz.text.conversation import (
    MODEL_FAMILIES,
    MULTISCALE_INSTRUCTION,
    QWEN_IMAGE,
    SINGLE_INSTRUCTION,
    choose_image_size,
    find_qwen_image_size,
    write_chat,
)
from coz.text.step_prompts import trim

WORDS = "orange fur, a cat's eye"

NO_TEXT, NO_IMAGES = "generates no text", "takes no images"


class Encoder(NamedTuple):
    """A text encoder of the host."""

    path: str
    options: dict | None = None
    """What the function of that path makes it with; a class needs none."""
    family: str = ""
    """The chat format that the extractor writes for it; empty where it cannot describe images."""
    lacks: str = ""
    since: str = "0"
    """The first of the supported hosts that has it."""


ENCODERS = {
    "CLIP-L": Encoder("sd1_clip.SD1ClipModel", lacks=NO_TEXT),
    "SD3": Encoder("text_encoders.sd3_clip.sd3_clip", {"dtype_t5": torch.float16}, lacks=NO_TEXT),
    "T5": Encoder("text_encoders.wan.te", lacks=NO_TEXT),
    "Gemma 2": Encoder("text_encoders.lumina2.te", lacks=NO_IMAGES),
    "Gemma 3 without vision": Encoder(
        "text_encoders.lumina2.te", {"model_type": "gemma3_4b"}, lacks=NO_IMAGES
    ),
    "Qwen3": Encoder("text_encoders.z_image.te", lacks=NO_IMAGES),
    "Qwen3-VL as flux2": Encoder("text_encoders.flux.klein_te", lacks=NO_IMAGES),
    "Ministral 3": Encoder("text_encoders.ernie.te", lacks=NO_IMAGES),
    "Qwen2.5-VL of Qwen-Image": Encoder("text_encoders.qwen_image.te", lacks=NO_TEXT),
    "Qwen2.5-VL of OmniGen2": Encoder("text_encoders.omnigen2.te", lacks=NO_TEXT),
    "Qwen3-VL 4B": Encoder("text_encoders.qwen3vl.te", {"model_type": "qwen3vl_4b"}, "qwen3"),
    "Qwen3-VL 8B": Encoder("text_encoders.qwen3vl.te", None, "qwen3"),
    "Qwen3-VL 4B as krea2": Encoder("text_encoders.krea2.te", None, "qwen3"),
    "Qwen3.5 4B": Encoder("text_encoders.qwen35.te", {"model_type": "qwen35_4b"}, "qwen3"),
    "Gemma 3 4B": Encoder("text_encoders.lumina2.te", {"model_type": "gemma3_4b_vision"}, "gemma3"),
    "Gemma 3 12B": Encoder("text_encoders.lt.gemma3_te", None, "gemma3"),
    "Gemma 3 12B of LTX-2": Encoder("text_encoders.lt.ltxav_te", None, "gemma3"),
    "Gemma 4 E4B": Encoder(
        "text_encoders.gemma4.gemma4_te", {"model_class": "Gemma4_E4B"}, "gemma4"
    ),
    "Gemma 4 12B": Encoder(
        "text_encoders.gemma4.gemma4_te", {"model_class": "Gemma4_12B"}, "gemma4", since="0.30"
    ),
    # It can, but its tokenizer leaves images out.
    "Qwen3-VL 32B of MiniMax": Encoder("text_encoders.minimax.te", since="0.30"),
}
READERS = [name for name, encoder in ENCODERS.items() if encoder.family]

GEMMA3_WORDS = ["<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>"]


@pytest.fixture(scope="module")
def extractor(nodes_of):
    return nodes_of("step.prompt_extractor")


@pytest.fixture
def shown(extractor, monkeypatch):
    """What appears on the node, with the function that shows it."""
    lines = []

    def record(name, text):
        if text:
            lines.append((name, text))

    for name in ("finish_with_notices", "give_notice"):
        monkeypatch.setattr(extractor, name, partial(record, name))
    return lines


@pytest.fixture
def extract(extractor, shown):
    def run(vlm, image, *args, **kwargs):
        with torch.inference_mode():
            if not args:
                kwargs.setdefault("prompt", "")
            return extractor.CoZPromptExtractor.execute(vlm, image, *args, **kwargs)[0]

    return run


@pytest.fixture(scope="module")
def host_class(pack, since):
    """A text encoder of the host at its full size, without memory."""

    def make(name):
        encoder = ENCODERS[name]
        since(encoder.since)
        module, _, made_by = encoder.path.rpartition(".")
        module = importlib.import_module(f"comfy.{module}")
        made_by = getattr(module, made_by)
        options = dict(encoder.options or {})
        if "model_class" in options:
            options["model_class"] = getattr(module, options["model_class"])
        if not inspect.isclass(made_by):
            made_by = made_by(**options)
        return SimpleNamespace(cond_stage_model=made_by(device="meta", dtype=torch.float16))

    return make


def picture(height, width, seed=0):
    return torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def gemma3_vocabulary(tmp_path_factory):
    """A small SentencePiece model with Gemma 3's markers; the end of a turn has its number, 106."""
    import sentencepiece

    folder = tmp_path_factory.mktemp("gemma3")
    (folder / "text.txt").write_text(f"{MULTISCALE_INSTRUCTION}\nuser\nmodel\n" * 50)
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"),
        model_prefix=str(folder / "gemma3"),
        vocab_size=400,
        user_defined_symbols=["\n", *[f"<unused{i}>" for i in range(100)], *GEMMA3_WORDS],
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    model = (folder / "gemma3.model").read_bytes()
    return {"spiece_model": torch.frombuffer(bytearray(model), dtype=torch.uint8)}


@pytest.fixture(scope="module")
def gemma4_vocabulary():
    """Gemma 4's markers at their numbers, and a number for each word."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split

    markers = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<|turn>": 105, "<turn|>": 106}
    markers |= {"<|channel>": 100, "<channel|>": 101}
    markers |= {"<|image>": 255999, "<|image|>": 258880, "<image|>": 258882}
    words = ["system", "user", "model", "thought", "What", "is", "in", "this", "image", "\n"]
    vocabulary = markers | {word: 1000 + i for i, word in enumerate(words)}
    vocabulary |= {" ": 999, "\n\n": 998}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Split(Regex(r"\n+|\w+|[^\w]"), "isolated")
    tokenizer.add_special_tokens(list(markers))
    return {"tokenizer_json": tokenizer.to_str().encode()}


@pytest.fixture(scope="module")
def tokenizer(pack, since, gemma3_vocabulary, gemma4_vocabulary):
    """The host's tokenizer of that model."""

    def encoders(module):
        return importlib.import_module(f"comfy.text_encoders.{module}")

    gemma3, gemma4 = {"tokenizer_data": gemma3_vocabulary}, {"tokenizer_data": gemma4_vocabulary}
    make = {
        "Qwen3-VL 4B": lambda: encoders("qwen3vl").tokenizer("qwen3vl_4b")(),
        "Qwen3-VL 8B": lambda: encoders("qwen3vl").tokenizer("qwen3vl_8b")(),
        "Qwen3-VL 4B as krea2": lambda: encoders("krea2").Krea2Tokenizer(),
        "Qwen3-VL 32B of MiniMax": lambda: encoders("minimax").MiniMaxH3Tokenizer(),
        "Qwen3.5 4B": lambda: encoders("qwen35").tokenizer("qwen35_4b")(),
        "Gemma 3 4B": lambda: encoders("lumina2").NTokenizer(**gemma3),
        "Gemma 3 12B": lambda: encoders("lt").Gemma3_12BTokenizer(**gemma3),
        "Gemma 3 12B of LTX-2": lambda: encoders("lt").LTXAVGemmaTokenizer(**gemma3),
        "Gemma 4 E4B": lambda: encoders("gemma4").Gemma4_E4B.tokenizer(**gemma4),
        "Gemma 4 12B": lambda: encoders("gemma4").Gemma4_12B.tokenizer(**gemma4),
    }

    @cache
    def made(name):
        since(ENCODERS[name].since)
        return make[name]()

    return made


@pytest.fixture
def recorder(host_class, tokenizer):
    """A CLIP with the host's classes and tokenizers that records what it is to answer, and says WORDS."""

    def make(name, answer=WORDS, ids=(5, 6, 106, 151645, 248046)):
        clip = host_class(name)
        clip.asked = []

        def generate(tokens, **options):
            clip.asked.append((tokens, options))
            return list(ids)

        def decode(token_ids, skip_special_tokens=True):
            clip.decoded = token_ids
            return answer

        clip.tokenize = tokenizer(name).tokenize_with_weights
        clip.generate, clip.decode = generate, decode
        return clip

    return make


def asked_row(clip):
    tokens = clip.asked[-1][0]
    (row,) = next(iter(tokens.values())) if isinstance(tokens, dict) else tokens
    return [token for token, *_ in row]


GREEDY = {"do_sample": True, "top_k": 1, "temperature": 1.0, "top_p": 1.0, "min_p": 0.0}
GREEDY |= {"repetition_penalty": 1.05, "seed": 0, "max_length": 32}
CHOSEN = {"temperature": 0.7, "top_p": 0.9, "seed": 2**64 - 1}
SAMPLING, SAMPLED = {"sampling_mode": "on", **CHOSEN}, {**CHOSEN, "top_k": 0}


@pytest.mark.parametrize("name", READERS)
def test_which_models_of_the_host_can(extractor, host_class, name):
    clip = host_class(name)
    network = extractor.find_network(clip)
    assert extractor.find_chat_family(clip, network) == MODEL_FAMILIES[ENCODERS[name].family]


@pytest.mark.parametrize("name", [name for name in ENCODERS if ENCODERS[name].lacks])
def test_another_text_encoder_is_refused_by_what_it_lacks(extract, host_class, name):
    told = f"vlm \\(\\w+\\) {ENCODERS[name].lacks}, .*Load Prompt Extractor, or Load CLIP"
    with pytest.raises(ValueError, match=told):
        extract(host_class(name), picture(8, 8))


def test_what_a_newer_host_lets_a_model_do_decides(extractor, host_class):
    clip = host_class("Qwen2.5-VL of Qwen-Image")
    network = clip.cond_stage_model.qwen25_7b.transformer
    network.model.config.stop_tokens = [151643, 151645]
    assert extractor.find_network(clip) is network
    assert extractor.find_chat_family(clip, network) == MODEL_FAMILIES["qwen2.5"]
    network.model.config.can_generate = False  # newer hosts say so of Qwen3-VL 32B
    with pytest.raises(ValueError, match="generates no text"):
        extractor.find_network(clip)


def test_an_unknown_chat_format_is_refused(extractor, host_class):
    clip = host_class("Qwen3-VL 4B")
    network = extractor.find_network(clip)
    network.visual.patch_size = 20
    with pytest.raises(ValueError, match="has a chat format that this pack does not know"):
        extractor.find_chat_family(clip, network)


def test_a_tokenizer_that_leaves_images_out_is_refused(extract, recorder):
    clip = recorder("Qwen3-VL 32B of MiniMax")
    with pytest.raises(ValueError, match="has a tokenizer that leaves images out"):
        extract(clip, picture(8, 8))
    assert clip.asked == []


def test_no_text_encoder(extract):
    with pytest.raises(ValueError, match=r"vlm is empty.*Load Prompt Extractor"):
        extract(None, picture(8, 8))


@pytest.fixture(scope="module")
def reference_tokenizer(pack):
    """transformers' own, with the chat template that comes with the files."""
    import comfy.text_encoders.llama as host
    from transformers import Qwen2Tokenizer

    folder = Path(host.__file__).parent
    return cache(lambda name: Qwen2Tokenizer.from_pretrained(folder / f"{name}_tokenizer"))


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("instruction", [SINGLE_INSTRUCTION, MULTISCALE_INSTRUCTION, "a {b}\nc"])
def test_conversation_is_that_of_the_chat_template(reference_tokenizer, images, instruction):
    def reference(name, user, **options):
        messages = [{"role": "system", "content": instruction}, {"role": "user", "content": user}]
        options |= {"tokenize": False, "add_generation_prompt": True}
        return reference_tokenizer(name).apply_chat_template(messages, **options)

    text = write_chat(MODEL_FAMILIES["qwen2.5"], instruction, images)
    assert text == reference("qwen25", QWEN_IMAGE * images)
    text = write_chat(MODEL_FAMILIES["qwen3"], instruction, images)
    user = [{"type": "image"}] * images
    assert text == reference("qwen35", user, enable_thinking=False)


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize(
    ("name", "reference", "place"),
    [
        ("Qwen3-VL 4B", "qwen25", 151655),
        ("Qwen3-VL 8B", "qwen25", 151655),
        ("Qwen3-VL 4B as krea2", "qwen25", 151655),
        ("Qwen3.5 4B", "qwen35", 248056),
    ],
)
@pytest.mark.parametrize(
    "instruction", ["", "\ufeff\u200b\n", "a (b:1.2) [c] \\(d\\) \\ {e} 猫, :)"]
)
def test_tokens_of_qwen(
    extract, recorder, reference_tokenizer, name, reference, place, instruction
):
    clip = recorder(name)
    extract(clip, picture(64, 80), "typed by hand", instruction, previous_image=picture(30, 100))
    row = asked_row(clip)
    assert sum(isinstance(token, dict) for token in row) == 2
    text = write_chat(MODEL_FAMILIES["qwen3"], trim(instruction) or MULTISCALE_INSTRUCTION, 2)
    found = [place if isinstance(token, dict) else token for token in row]
    assert found == ids_of(reference_tokenizer(reference), text)


@pytest.mark.parametrize("name", ["Gemma 3 4B", "Gemma 3 12B", "Gemma 3 12B of LTX-2"])
def test_tokens_of_gemma_3(extract, recorder, gemma3_vocabulary, name):
    import sentencepiece

    proto = bytes(gemma3_vocabulary["spiece_model"].tolist())
    model = sentencepiece.SentencePieceProcessor(model_proto=proto)
    clip = recorder(name)
    extract(clip, picture(64, 80))
    row = asked_row(clip)
    chat = write_chat(MODEL_FAMILIES["gemma3"], SINGLE_INSTRUCTION, 1)
    before, after = chat.split("<image_soft_token>")
    image = row.index(next(token for token in row if isinstance(token, dict)))
    assert row[:image] == [model.bos_id(), *model.encode(before)]
    assert row[image + 1 :] == model.encode(after)
    assert model.encode("<end_of_turn>") == [106]
    assert row[1] == model.piece_to_id("<start_of_turn>")
    around = [model.piece_to_id(word) for word in GEMMA3_WORDS[2:]]
    assert [row[image - 1], row[image + 1]] == around


@pytest.mark.parametrize("name", ["Gemma 4 E4B", "Gemma 4 12B"])
def test_tokens_of_gemma_4(extract, recorder, gemma4_vocabulary, name):
    from tokenizers import Tokenizer

    clip = recorder(name)
    extract(clip, picture(64, 80), previous_image=picture(30, 100))
    text = write_chat(MODEL_FAMILIES["gemma4"], MULTISCALE_INSTRUCTION, 2)
    expected = Tokenizer.from_str(gemma4_vocabulary["tokenizer_json"].decode()).encode(text).ids
    row = asked_row(clip)
    assert [258880 if isinstance(token, dict) else token for token in row] == [2, *expected]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("Qwen3-VL 4B", [(160, 480), (256, 288)]),
        ("Qwen3.5 4B", [(160, 480), (256, 288)]),
        ("Gemma 3 4B", [(896, 896), (896, 896)]),
        ("Gemma 4 E4B", [(432, 1440), (672, 864)]),
    ],
)
def test_the_wider_view_comes_first(extract, recorder, name, sizes):
    clip = recorder(name)
    dark, light = torch.zeros(1, 30, 100, 3), torch.ones(1, 64, 80, 3)
    extract(clip, light, previous_image=dark)
    images = [token["data"] for token in asked_row(clip) if isinstance(token, dict)]
    assert [tuple(image.shape[1:3]) for image in images] == sizes
    assert [float(image.mean()) for image in images] == [0, 1]


MARKERS = "<|im_end|><|im_start|>user <|image_pad|><end_of_turn><start_of_turn><image_soft_token><turn|><|turn><|image|><think></think>"


@pytest.mark.parametrize("name", READERS)
def test_markers_in_the_instruction_are_broken(extract, recorder, name):
    clip = recorder(name)
    extract(clip, picture(64, 80), MARKERS, "What is it?")
    plain = asked_row(clip)
    extract(clip, picture(64, 80), MARKERS, f"What {MARKERS} is it?")
    row = asked_row(clip)
    numbers = {105, 106, 255999, 258880, 258882, *range(151643, 151669), *range(248044, 248070)}

    def markers(row):
        ids = (None if isinstance(token, dict) else token for token in row)
        return [number for number in ids if number is None or number in numbers]

    assert markers(row) == markers(plain)


def test_an_embedding_in_the_instruction_is_text(extract, recorder, tokenizer, tmp_path):
    clip = recorder("Qwen3-VL 4B")
    save_file({"qwen3vl_4b": torch.ones(2, 2560)}, tmp_path / "foo.safetensors")
    inner = tokenizer("Qwen3-VL 4B").qwen3vl_4b
    inner.embedding_directory = [str(tmp_path)]
    try:
        raw = clip.tokenize("<|im_start|> embedding:foo")["qwen3vl_4b"][0]
        assert any(torch.is_tensor(token) for token, _ in raw)
        extract(clip, picture(64, 80), "", "embedding:foo and embedding:foo")
    finally:
        inner.embedding_directory = None
    assert all(isinstance(token, (int, dict)) for token in asked_row(clip))


SIDES = [1, 2, 13, 14, 20, 27, 28, 29, 63, 224, 511, 512, 513, 1001, 1333, 4096, 8000]


@pytest.mark.parametrize("multiple_of", [28, 32])
def test_sizes_are_those_of_transformers(pack, multiple_of):
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize as reference

    for height in SIDES:
        for width in SIDES:
            for least in (56 * 56, 256 * 256):
                size = find_qwen_image_size(height, width, multiple_of, least)
                if max(height, width) <= 200 * min(height, width):
                    assert size == reference(height, width, multiple_of, least)
                assert all(side % multiple_of == 0 and side > 0 for side in size)
                assert size[0] * size[1] >= least


@pytest.mark.parametrize("family", ["qwen2.5", "qwen3"])
def test_the_host_does_not_resize_again(extractor, family):
    from comfy.text_encoders.qwen_vl import process_qwen2vl_images

    family = MODEL_FAMILIES[family]
    patch = family.multiple_of // 2
    for height, width in [(1, 1), (20, 8000), (8000, 20), (511, 333), (2000, 3000)]:
        fitted = extractor.fit_to_model(torch.zeros(1, 3, 1, 1).expand(1, 3, height, width), family)
        _, grid = process_qwen2vl_images(fitted, patch_size=patch)
        assert grid.tolist() == [[1, fitted.shape[1] // patch, fitted.shape[2] // patch]]
        assert fitted.shape[1:3] == choose_image_size(family, height, width)


@pytest.mark.parametrize("size", [(256, 320), (100, 700), (900, 650)])
def test_pixels_are_those_of_transformers(extractor, size):
    from comfy.text_encoders.qwen_vl import process_qwen2vl_images
    from transformers import Qwen2VLImageProcessor

    # Mild enough that nothing overshoots: transformers clips between its two passes.
    image = (picture(*size) * 100 + 80).round()
    limits = {"shortest_edge": 56 * 56, "longest_edge": 12845056}
    processor = Qwen2VLImageProcessor(size=limits, patch_size=14)
    expected = processor(Image.fromarray(image[0].byte().numpy()), return_tensors="pt")
    fitted = extractor.fit_to_model((image / 255).movedim(-1, 1), MODEL_FAMILIES["qwen2.5"])
    patches, grid = process_qwen2vl_images(fitted)
    assert torch.equal(grid, expected["image_grid_thw"])
    # transformers rounds to 8 bits, here between two passes as well; 0.26 is its smallest deviation.
    assert (patches - expected["pixel_values"]).abs().max() < 1.5 / 255 / 0.26


@pytest.mark.parametrize("name", ["Qwen3-VL 4B", "Gemma 3 4B", "Gemma 4 E4B", "Gemma 4 12B"])
@pytest.mark.parametrize("size", [(1, 1), (20, 8000), (8000, 20)])
def test_extreme_images(extract, recorder, name, size):
    clip = recorder(name)
    assert extract(clip, picture(*size)) == WORDS
    (image,) = [token["data"] for token in asked_row(clip) if isinstance(token, dict)]
    assert min(image.shape[1:3]) >= 28
    assert image.shape[1] * image.shape[2] < 2_000_000


def test_grey_alpha_and_half_precision(extract, recorder):
    clip = recorder("Qwen3-VL 4B")
    for image in (picture(8, 8)[..., :1], torch.rand(1, 8, 8, 4), picture(8, 8).half()):
        extract(clip, image)
        (shown,) = [token["data"] for token in asked_row(clip) if isinstance(token, dict)]
        assert (shown.shape[-1], shown.dtype) == (3, torch.float32)


@pytest.mark.parametrize("name", ["image", "previous_image"])
def test_a_batch_or_nan_is_refused(extract, recorder, name):
    clip = recorder("Qwen3-VL 4B")
    images = {"image": picture(8, 8), "previous_image": picture(8, 8)}
    for wrong, why in [
        (torch.rand(3, 8, 8, 3), f"^{name} is a batch of 3 images.*Rebatch Images"),
        (torch.full((1, 8, 8, 3), torch.nan), f"^{name} holds 192 values that are NaN"),
    ]:
        with pytest.raises(ValueError, match=why):
            extract(clip, **(images | {name: wrong}), prompt="")
    assert clip.asked == []


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ((), {}),
        (("", 7, {"sampling_mode": "off"}), {"max_length": 7}),
        (("", 32, SAMPLING), SAMPLED),
        # no temperature is lower than the least
        (("", 32, SAMPLING | {"temperature": 0.009}), SAMPLED | {"temperature": 0.01}),
        (("", 32, SAMPLING | {"temperature": 2e-309}), SAMPLED | {"temperature": 0.01}),
    ],
)
def test_greedy_keeps_the_penalty_and_sampling_is_passed_on(extract, recorder, options, asked):
    clip = recorder("Qwen3-VL 4B")
    extract(clip, picture(8, 8), "", *options)
    assert clip.asked[0][1] == GREEDY | asked


@pytest.mark.parametrize(
    ("ids", "decoded", "text"),
    [
        pytest.param([5, 6, 151645], [5, 6], "red fur, whisk", id="ended"),
        pytest.param([5, 6, 7], [5, 6, 7], "red fur", id="cut by the limit"),
        pytest.param([5, 6], [5, 6], "red fur, whisk", id="shorter than the limit"),
        pytest.param([5, 151643, 9], [5], "red fur, whisk", id="ended before the limit"),
    ],
)
def test_a_cut_answer_loses_its_last_word(extract, recorder, ids, decoded, text):
    clip = recorder("Qwen3-VL 4B", "red fur, whisk", ids)
    assert extract(clip, picture(8, 8), "", "", 3) == text
    assert clip.decoded == decoded


@pytest.mark.parametrize(
    ("answer", "prompt", "text", "shown_lines"),
    [
        ("a cat", "", "a cat", [("finish_with_notices", "a cat")]),
        (" a cat\n", "best\nquality", "a cat, best quality", [("finish_with_notices", "a cat")]),
        ("A cat.", "sharp", "A cat, sharp", [("finish_with_notices", "A cat.")]),
        ("", "sharp (b:1.2)", "sharp (b:1.2)", "give_notice"),
        ("The second image is a zoom-in.", "", "", "give_notice"),
    ],
)
def test_what_comes_out_and_is_shown(extract, recorder, shown, answer, prompt, text, shown_lines):
    assert extract(recorder("Qwen3-VL 4B", answer), picture(8, 8), prompt) == text
    if shown_lines == "give_notice":
        ((kind, line),) = shown
        assert kind == "give_notice"
        assert "nothing usable" in line
    else:
        assert shown == shown_lines


SMALL = {"hidden_size": 64, "intermediate_size": 64}
SMALL |= {"num_attention_heads": 2, "num_key_value_heads": 1}
SMALL_VISION = {"hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "depth": 3}
STACKED = SMALL_VISION | {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64}


def make_clip(te, tokenizer, weights=(), **options):
    """A CLIP as the host's loader makes it; random where there are no weights."""
    import comfy.sd

    target = SimpleNamespace(params={}, clip=te, tokenizer=lambda **kwargs: tokenizer)
    options = {"dtype": torch.float32, **options}
    clip = comfy.sd.CLIP(target, state_dict=weights, model_options=options)
    if not weights:
        torch.manual_seed(0)
        for name, weight in clip.cond_stage_model.state_dict().items():
            if name.endswith("layer_scalar"):
                weight.fill_(1)
        for weight in clip.cond_stage_model.parameters():
            torch.nn.init.normal_(weight, std=0.1)
    return clip


@pytest.fixture
def recorded(extract, monkeypatch):
    """The ids that a real CLIP answers with."""

    def run(clip, *args, **kwargs):
        answers = []
        monkeypatch.setattr(clip, "decode", lambda ids: answers.append(ids) or "")
        extract(clip, *args, **kwargs)
        return answers[0]

    return run


@pytest.fixture(scope="module")
def qwen3vl_reference(pack):
    """A tiny Qwen3-VL of transformers."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    rope = {"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True}
    text = SMALL | {"num_hidden_layers": 2, "head_dim": 128, "vocab_size": 151936}
    text |= {"rms_norm_eps": 1e-6, "rope_theta": 5000000.0, "rope_scaling": rope}
    text["tie_word_embeddings"] = True  # where transformers before 5 look
    config = Qwen3VLConfig(
        text_config=text,
        vision_config={**STACKED, "out_hidden_size": 64, "patch_size": 16},
        tie_word_embeddings=True,
        image_token_id=151655,
        vision_start_token_id=151652,
        vision_end_token_id=151653,
    )
    model = Qwen3VLForConditionalGeneration(config).eval()
    torch.manual_seed(0)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.6)
    return model


@pytest.fixture(scope="module")
def qwen3vl(qwen3vl_reference, tokenizer):
    from comfy.text_encoders import qwen3vl

    weights = {
        key.removeprefix("model.").replace("language_model.", "model."): weight
        for key, weight in qwen3vl_reference.state_dict().items()
        if key != "lm_head.weight"
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(qwen3vl.QWEN3VL_VISION, "qwen3vl_4b", STACKED)
        return make_clip(
            qwen3vl.te(model_type="qwen3vl_4b"),
            tokenizer("Qwen3-VL 4B"),
            [weights],
            qwen3vl_4b_model_config={**SMALL, "num_hidden_layers": 2},
        )


def eight_bit(height, width, seed):
    """A picture of a size that is not resized, as transformers see it."""
    return (picture(height, width, seed) * 255).round() / 255


def test_qwen3vl_writes_what_transformers_write(
    recorded, qwen3vl, qwen3vl_reference, reference_tokenizer
):
    import transformers
    from transformers import Qwen2VLImageProcessor

    wider, zoomed = eight_bit(256, 320, 1), eight_bit(288, 256, 2)
    answer = recorded(qwen3vl, zoomed, "", "", 8, previous_image=wider)
    limits = {"shortest_edge": 256 * 256, "longest_edge": 4096 * 4096}
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    processor = Qwen2VLImageProcessor(size=limits, patch_size=16, **half)
    images = [Image.fromarray((i[0] * 255).round().byte().numpy()) for i in (wider, zoomed)]
    pixels = processor(images, return_tensors="pt")
    text = write_chat(MODEL_FAMILIES["qwen3"], MULTISCALE_INSTRUCTION, 2)
    for grid in pixels["image_grid_thw"]:  # a placeholder for each token of an image
        text = text.replace("<|image_pad|>", "<place>" * int(grid.prod() // 4), 1)
    text = text.replace("<place>", "<|image_pad|>")
    ids = torch.tensor([ids_of(reference_tokenizer("qwen25"), text)])
    is_older = transformers.__version__.startswith("4.")
    expected = []
    with torch.inference_mode():
        for _ in answer:
            logits = qwen3vl_reference(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                # Where pictures are, which transformers ask for from 5 on.
                **({} if is_older else {"mm_token_type_ids": (ids == 151655).int()}),
                **pixels,
            ).logits[0, -1]
            # Of the answer alone: the host's penalty leaves the question out.
            for token in set(expected):
                logits[token] *= 1.05 if logits[token] < 0 else 1 / 1.05
            expected.append(int(logits.argmax()))
            ids = torch.cat([ids, torch.tensor([expected[-1:]])], 1)
    assert answer == expected
    assert recorded(qwen3vl, wider, "", "", 8, previous_image=zoomed) != answer


@pytest.fixture(params=["Qwen3.5 4B", "Gemma 3 4B", "Gemma 4 31B"])
def tiny(request, tokenizer):
    """Random models, of the families that have no oracle here."""
    from comfy.text_encoders import gemma4, llama, lumina2, qwen35

    siglip = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    siglip |= {"num_hidden_layers": 1, "head_dim": 16}
    name = request.param
    with pytest.MonkeyPatch.context() as patch:
        if name == "Qwen3.5 4B":
            sizes = {**SMALL, "num_hidden_layers": 4, "vision": {**SMALL_VISION, "depth": 1}}
            patch.setitem(qwen35.QWEN35_MODELS, "qwen35_4b", sizes)
            return make_clip(qwen35.te(model_type="qwen35_4b"), tokenizer(name))
        if name == "Gemma 3 4B":
            vision = {**llama.GEMMA3_VISION_CONFIG, **siglip}
            patch.setattr(llama.Gemma3_4B_Vision_Config, "vision_config", vision)
            return make_clip(
                lumina2.te(model_type="gemma3_4b_vision"),
                tokenizer(name),
                gemma3_4b_vision_model_config={**SMALL, "num_hidden_layers": 3, "vocab_size": 400},
            )
        vision = {**gemma4.GEMMA4_VISION_31B_CONFIG, **siglip}
        patch.setattr(gemma4.Gemma4_31B_Config, "vision_config", vision)
        return make_clip(
            gemma4.gemma4_te(model_class=gemma4.Gemma4_31B),
            tokenizer("Gemma 4 E4B"),
            gemma4_model_config={**SMALL, "num_hidden_layers": 6},
        )


def test_other_models_of_the_host_run(recorded, tiny):
    sampling = {"sampling_mode": "on", "temperature": 1.0, "top_p": 1.0, "seed": 0}
    two = {"previous_image": picture(30, 300, 1)}
    answer = recorded(tiny, picture(64, 80), "", "", 4, sampling, **two)
    assert recorded(tiny, picture(64, 80), "", "", 4, sampling, **two) == answer
    assert 1 <= len(answer) <= 4


def test_a_seed_decides_what_is_drawn(extract, qwen3vl):
    def drawn(seed):
        sampling = {"sampling_mode": "on", "temperature": 1.0, "top_p": 1.0, "seed": seed}
        return extract(qwen3vl, picture(64, 80), "", "", 12, sampling)

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in (1, 2, 2**64 - 1)}) == 3
