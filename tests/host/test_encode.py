"""CoZ Encode Prompt against transformers, which Chain-of-Zoom's reference code calls."""

import importlib
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

LONG = "one two three four five, " * 60
"""More than 77 tokens of CLIP; as T5's 512 it is cut, too."""

LITERAL = {
    "empty": "",
    "blank": " \n",
    "plain": "a cat on the roof",
    "weights": "a (cat:1.3), ((dog)) [bird:0.5]",
    "unbalanced": "a) cat ( on:1.2) the (roof",
    "escaped": r"a \(cat\) (on \\(the:1.2\\) roof) \ and \\",
    "embedding": "embedding:foo a  embedding:foo,\nembedding:foo\tembedding:foo (embedding:foo:1.2)",
    "symbols": "a {cat|dog} <lora:x:1> 100% café 猫",
    "long": LONG,
    "75": "cat " * 75,
    "76": "cat " * 76,
}

WIDTHS = {"l": 64, "g": 128, "h": 96}

TOLERANCE = 1e-4
"""Relative to the largest value. Both sum float32 in their own order: about 1e-6 apart, and one other token in the text makes 1e-2."""


@pytest.fixture(scope="module")
def encode(node):
    return lambda *args: node("CoZEncodePrompt").execute(*args)[0]


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory):
    """An embeddings folder with a file foo that every encoder could load."""
    folder = tmp_path_factory.mktemp("embeddings")
    tensors = {"clip_l": 768, "clip_g": 1280, "clip_h": 1024, "t5xxl": 4096, "qwen3_4b": 2560}
    save_file({k: torch.ones(2, width) for k, width in tensors.items()}, folder / "foo.safetensors")
    return [str(folder)]


@pytest.fixture(scope="module")
def tokenizer_clip(pack, embeddings):
    """A CLIP with the host's tokenizer of that name, whose conditioning is the tokens it got."""
    import comfy.sd

    class TokensOnly(comfy.sd.CLIP):
        def encode_from_tokens_scheduled(self, tokens):
            return tokens

    @cache
    def load(name):
        module, _, cls = name.rpartition(".")
        tokenizer = getattr(importlib.import_module(f"comfy.{module}"), cls)
        return tokenizer(embedding_directory=embeddings)

    def make(name):
        clip = TokensOnly(no_init=True)
        clip.tokenizer = load(name)
        clip.tokenizer_options = {}
        return clip

    return make


@pytest.fixture(scope="module")
def reference_tokens(pack):
    """Ids as diffusers' SD3 pipeline gets them, by the host's name of the encoder."""
    import comfy.sd1_clip
    from transformers import CLIPTokenizer, T5TokenizerFast

    host = Path(comfy.sd1_clip.__file__).parent
    clip_l = CLIPTokenizer.from_pretrained(host / "sd1_tokenizer")
    clip_g = CLIPTokenizer.from_pretrained(host / "sd1_tokenizer", pad_token="!")
    t5 = T5TokenizerFast.from_pretrained(host / "text_encoders" / "t5_tokenizer")

    def tokens(encoder, text, max_length=77):
        tokenizer = {"l": clip_l, "g": clip_g, "h": clip_g, "t5xxl": t5}[encoder]
        length = {"padding": "max_length", "max_length": max_length, "truncation": True}
        return tokenizer(text, **length).input_ids

    return tokens


def ids(chunks):
    # Each token is (id, weight), and in LongCat's padding something more.
    assert {token[1] for chunk in chunks for token in chunk} == {1.0}
    return [[token[0] for token in chunk] for chunk in chunks]


@pytest.mark.parametrize("prompt", LITERAL.values(), ids=LITERAL)
@pytest.mark.parametrize(
    ("name", "encoders"),
    [
        ("sd1_clip.SD1Tokenizer", "l"),
        ("text_encoders.sd2_clip.SD2Tokenizer", "h"),
        ("sdxl_clip.SDXLTokenizer", "lg"),
        ("text_encoders.sd3_clip.SD3Tokenizer", "lg"),
        ("text_encoders.flux.FluxTokenizer", "l"),
    ],
)
def test_clip_ids_are_those_of_transformers(
    encode, tokenizer_clip, reference_tokens, name, encoders, prompt
):
    tokens = encode(tokenizer_clip(name), prompt, 512)
    assert tokens.keys() - {"t5xxl"} == set(encoders)
    for encoder in encoders:
        assert ids(tokens[encoder]) == [reference_tokens(encoder, prompt)]


def test_half_of_a_character_is_a_question_mark(encode, tokenizer_clip):
    clip = tokenizer_clip("text_encoders.sd3_clip.SD3Tokenizer")
    assert encode(clip, "a \ud800", 512) == encode(clip, "a ?", 512)


@pytest.mark.parametrize("t5_tokens", [77, 200, 512])
@pytest.mark.parametrize("prompt", LITERAL.values(), ids=LITERAL)
@pytest.mark.parametrize("family", ["sd3_clip.SD3", "flux.Flux"])
def test_t5_ids_are_those_of_transformers(
    encode, tokenizer_clip, reference_tokens, family, prompt, t5_tokens
):
    # The one thing that is not as written: the host loads what stands behind it.
    expected = "(embedding:".join(
        part.replace("embedding:", "embedding :") for part in prompt.split("(embedding:")
    )
    tokens = encode(tokenizer_clip(f"text_encoders.{family}Tokenizer"), prompt, t5_tokens)
    assert ids(tokens["t5xxl"]) == [reference_tokens("t5xxl", expected, t5_tokens)]


def test_the_host_by_itself_loads_weighs_and_splits(tokenizer_clip):
    clip = tokenizer_clip("text_encoders.sd3_clip.SD3Tokenizer")
    assert torch.is_tensor(clip.tokenize("a embedding:foo")["l"][0][2][0])
    assert torch.is_tensor(clip.tokenize("embedding:foo")["t5xxl"][0][0][0])
    assert 1.3 in {weight for _, weight in clip.tokenize("(cat:1.3)")["l"][0]}
    assert clip.tokenize(r"\(x\)") == clip.tokenize(r"\(x)", disable_weights=True)
    assert len(clip.tokenize(LONG)["l"]) > 1


TEXT = r"embedding:foo a (cat:1.3) \(x\) ((y)) \\ z: {w} embedding:foo"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("qwen_image.QwenImageTokenizer", id="refuses disable_weights"),
        pytest.param("z_image.ZImageTokenizer", id="refuses disable_weights too"),
        pytest.param("flux.KleinTokenizer", id="refuses it and loads embeddings"),
        pytest.param("kandinsky5.Kandinsky5Tokenizer", id="refuses it, but its CLIP-L weighs"),
        pytest.param("omnigen2.Omnigen2Tokenizer", id="weighs"),
        pytest.param("longcat_image.LongCatImageTokenizer", id="knows no escapes"),
    ],
)
def test_language_models_get_the_text_as_written(encode, tokenizer_clip, reference_tokens, name):
    clip = tokenizer_clip(f"text_encoders.{name}")
    tokens = encode(clip, TEXT, 512)
    if "l" in tokens:
        assert ids(tokens.pop("l")) == [reference_tokens("l", TEXT)]
    ((encoder, (chunk,)),) = tokens.items()
    text = getattr(clip.tokenizer, encoder).tokenizer.decode(ids([chunk])[0])
    assert TEXT.replace("embedding:", "embedding :") in text


LENGTHS = {"pixart_t5.PixArt": 2, "genmo.MochiT5": 256, "hidream.HiDream": 128}


@pytest.mark.parametrize(("name", "length"), LENGTHS.items())
def test_other_models_t5_keeps_their_length(encode, tokenizer_clip, name, length):
    (t5,) = ids(encode(tokenizer_clip(f"text_encoders.{name}Tokenizer"), "cat", 512)["t5xxl"])
    assert len(t5) == length


def test_t5_tokens_wins_over_the_clips_own_options_and_leaves_them(encode, tokenizer_clip):
    clip = tokenizer_clip("text_encoders.sd3_clip.SD3Tokenizer")
    plain = [encode(clip, prompt, 512) for prompt in ("a cat", LONG * 3)]
    assert clip.tokenizer_options == {}
    clip.set_tokenizer_option("t5xxl_min_length", 700)
    clip.set_tokenizer_option("t5xxl_min_padding", 20)
    options = clip.tokenizer_options.copy()
    assert [encode(clip, prompt, 512) for prompt in ("a cat", LONG * 3)] == plain
    assert clip.tokenizer_options == options


@pytest.fixture(scope="module")
def networks():
    """Small random text encoders of transformers, with their configuration for the host."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

    torch.manual_seed(0)
    made = {}
    for name, width in WIDTHS.items():
        # Layers: the host takes the last but one, and wants one more below it.
        config = {"hidden_size": width, "intermediate_size": 2 * width}
        config |= {"num_hidden_layers": 3, "num_attention_heads": 2}
        act = "quick_gelu" if name == "l" else "gelu"
        ends = {"bos_token_id": 49406, "eos_token_id": 49407}
        full = CLIPTextConfig(**config, projection_dim=width, hidden_act=act, **ends)
        made[name] = CLIPTextModelWithProjection(full).eval(), config
    # SD3's CLIP-L has no projection: diffusers' converter puts the identity there.
    torch.nn.init.eye_(made["l"][0].text_projection.weight)
    # 4096 wide, as the CLIPs are padded to that; its vocabulary is as large as the texts here need.
    config = {"vocab_size": 8192, "d_ff": 64, "num_heads": 1, "num_layers": 2}
    full = T5Config(**config, d_model=4096, d_kv=64, feed_forward_proj="gated-gelu")
    made["t5xxl"] = T5EncoderModel(full).eval(), config
    return made


@pytest.fixture(scope="module")
def make_clip(pack, networks):
    """The host's CLIP of a family, with the encoders named, from the networks' weights."""
    import comfy.sd

    options = {"dtype": torch.float32}
    for name, (_, config) in networks.items():
        options[f"{'' if name == 't5xxl' else 'clip_'}{name}_model_config"] = config

    def make(model, tokenizer, encoders):
        target = SimpleNamespace(params={}, clip=model, tokenizer=tokenizer)
        clip = comfy.sd.CLIP(target, parameters=1, model_options=options)
        for name in encoders:
            encoder = getattr(clip.cond_stage_model, name if name == "t5xxl" else f"clip_{name}")
            missing, unexpected = encoder.load_sd(networks[name][0].state_dict())
            assert not missing
            assert set(unexpected) <= {"encoder.embed_tokens.weight"}
        return clip

    return make


@pytest.fixture(scope="module")
def sd3_clip(make_clip):
    from comfy.text_encoders.sd3_clip import SD3Tokenizer, sd3_clip

    def make(*encoders):
        has = {"clip_l": "l" in encoders, "clip_g": "g" in encoders, "t5": "t5xxl" in encoders}
        return make_clip(sd3_clip(**has), SD3Tokenizer, encoders)

    return make


def run(networks, name, tokens):
    with torch.no_grad():
        return networks[name][0](torch.tensor([tokens]), output_hidden_states=True)


def error(actual, expected):
    assert actual.shape == expected.shape
    assert expected.abs().max() > 0.1
    return ((actual - expected).abs().max() / expected.abs().max()).item()


PROMPTS = {
    "empty": "",
    "weights": r"a (cat:2) \(in\) the house",
    "long": "a cat, in the house " * 200,
}


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_sd3_is_encoded_as_in_the_reference(encode, sd3_clip, networks, reference_tokens, prompt):
    l = run(networks, "l", reference_tokens("l", prompt))
    g = run(networks, "g", reference_tokens("g", prompt))
    t5 = run(networks, "t5xxl", reference_tokens("t5xxl", prompt, 512)).last_hidden_state
    width = WIDTHS["l"] + WIDTHS["g"]
    ((context, extra),) = encode(sd3_clip("l", "g", "t5xxl"), prompt, 512)
    assert (context.shape, context.dtype) == ((1, 77 + 512, 4096), torch.float32)
    assert error(context[:, :77, : WIDTHS["l"]], l.hidden_states[-2]) < TOLERANCE
    assert error(context[:, :77, WIDTHS["l"] : width], g.hidden_states[-2]) < TOLERANCE
    assert not context[:, :77, width:].any()
    assert error(context[:, 77:], t5) < TOLERANCE
    assert error(extra["pooled_output"], torch.cat([l.text_embeds, g.text_embeds], -1)) < TOLERANCE
    assert "attention_mask" not in extra


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("encoder", ["l", "g"])
def test_sd3_with_one_clip_alone(encode, sd3_clip, networks, reference_tokens, encoder, prompt):
    clip = sd3_clip(encoder)
    ((context, extra),) = encode(clip, prompt, 512)
    expected = run(networks, encoder, reference_tokens(encoder, prompt))
    start, width = {"l": 0, "g": 768}[encoder], WIDTHS[encoder]
    assert context.shape == (1, 77, 4096)
    assert error(context[..., start : start + width], expected.hidden_states[-2]) < TOLERANCE
    assert not context[..., :start].any()
    assert not context[..., start + width :].any()
    pooled = extra["pooled_output"]
    pooled = pooled[:, :width] if encoder == "l" else pooled[:, -width:]
    assert error(pooled, expected.text_embeds) < TOLERANCE
    assert torch.equal(encode(clip, prompt, 77)[0][0], context)


def test_sd3_with_t5_alone(encode, sd3_clip, networks, reference_tokens):
    ((context, extra),) = encode(sd3_clip("t5xxl"), PROMPTS["weights"], 200)
    tokens = reference_tokens("t5xxl", PROMPTS["weights"], 200)
    assert error(context, run(networks, "t5xxl", tokens).last_hidden_state) < TOLERANCE
    assert extra["pooled_output"].shape == (1, 2048)
    assert not extra["pooled_output"].any()


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("encoder", ["l", "h"], ids=["SD1.5", "SD2.1"])
def test_a_single_clip(encode, make_clip, networks, reference_tokens, encoder, prompt):
    from comfy import sd1_clip
    from comfy.text_encoders import sd2_clip

    of_sd1 = sd1_clip.SD1ClipModel, sd1_clip.SD1Tokenizer
    of_sd2 = sd2_clip.SD2ClipModel, sd2_clip.SD2Tokenizer
    clip = make_clip(*(of_sd1 if encoder == "l" else of_sd2), encoder)
    ((context, extra),) = encode(clip, prompt, 512)
    reference = run(networks, encoder, reference_tokens(encoder, prompt))
    expected = reference.last_hidden_state
    if encoder == "h":
        with torch.no_grad():
            expected = networks["h"][0].text_model.final_layer_norm(reference.hidden_states[-2])
    assert error(context, expected) < TOLERANCE
    assert error(extra["pooled_output"], reference.text_embeds) < TOLERANCE


def test_plain_short_text_is_encoded_as_by_the_host_on_any_device(encode, node, sd3_clip):
    clip = sd3_clip("l", "g")
    (((theirs, their_extra),),) = node("CLIPTextEncode")().encode(clip, "a cat, in the house")
    for each in (clip, node("SelectCLIPDevice").execute(clip, "default")[0]):
        ((ours, our_extra),) = encode(each, "a cat, in the house", 512)
        assert torch.equal(ours, theirs)
        assert torch.equal(our_extra["pooled_output"], their_extra["pooled_output"])


def test_a_checkpoint_without_text_encoder_says_what_to_load(encode):
    with pytest.raises(ValueError, match=r"clip is empty.*Load CLIP"):
        encode(None, "a cat", 512)
