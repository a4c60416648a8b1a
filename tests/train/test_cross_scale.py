"""Cross-scale training: its losses, what they train, when it ends, and its result."""

import copy
import json
import weakref

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from coz.resample import resize
from coz.weights.read import read_weights
from tests.support.random_sd3 import coz_lora
from tests.support.random_weights import relative_error
from tools.train_grpo.config import read_config
from tools.train_sr import cross_scale, loop, second_prompts, texts
from tools.train_sr.config import CrossScaleConfig
from tools.train_sr.cross_scale import STUDENT, TEACHER, CrossScale, load_cross_scale
from tools.train_sr.dataset import find_text_file, open_crops
from tools.train_sr.network import GENERATOR
from tools.train_sr.score import load_score
from tools.train_sr.weights import LORA_FILE

from .conftest import lines
from .test_sr_files import enlarge, load_trained, run_step, to_frame
from .test_sr_network import inputs
from .test_sr_run import start
from .tiny_sd3 import save_crops, write_config

CPU = torch.device("cpu")
LOSSES = ("first", "second", "quality", "prior", "teacher")


def contrast(image):
    """A score for the tests."""
    return image.std((1, 2, 3))


def detached(image):
    return contrast(image).detach()


def constant(image):
    return image.sum() * 0


def musiq(image):
    return contrast(image)


class Pyiqa:
    metric_name = "maniqa-pipal"

    def __call__(self, image):
        return contrast(image)


renamed = Pyiqa()


@pytest.fixture(scope="session")
def cross_scale_parts(sr_parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cross")
    torch.save([matrix / 4 for matrix in coz_lora(2)], folder / "model_1.pkl")
    data = save_crops(folder / "crops", side=64)
    return sr_parts | {"start_lora": folder / "model_1.pkl", "data": data}


@pytest.fixture
def config(cross_scale_parts, tmp_path):
    def make(name="run", **changes):
        changes = {"score": f"{__name__}:contrast", "rank": 2, "check_every": 2} | changes
        path = write_config(tmp_path / f"{name}.yaml", cross_scale_parts, **changes)
        return read_config(path, CrossScaleConfig)

    return make


def make_task(config, is_moved=True):
    """With a LoRA that is not 0, as later in a training."""
    task = load_cross_scale(config, CPU, open_crops(config), open_crops(config, held_out=True))
    for name in (STUDENT, TEACHER) if is_moved else ():
        for parameter in task.network.list_parameters(name):
            generator = torch.Generator().manual_seed(parameter.numel() + len(name))
            parameter.data += torch.randn(parameter.shape, generator=generator) / 9
    return task


def read_batch(config):
    return next(loop.read_batches(config, open_crops(config), loop.make_accelerator(config), 0))


def find_gradients(task, batch):
    task.compute_gradients(batch, loop.make_generator(7), lambda loss: loss.backward())
    named = [*task.network.transformer.named_parameters(), *task.network.vae.named_parameters()]
    found = {name: p.grad for name, p in named if p.grad is not None}
    for _, parameter in named:
        parameter.grad = None
    return found


def flatten(gradients):
    return torch.cat([gradient.flatten() for gradient in gradients.values()])


def train(config):
    task = make_task(config, is_moved=False)
    crops = open_crops(config), open_crops(config, held_out=True)
    loop.train(config, task, *crops, loop.make_accelerator(config))
    return task


def read_log(config):
    return lines(config.out / "losses.jsonl")


def test_losses_are_those_of_three_networks(config):
    """Each role is a network of its own here, whose adapters are never switched."""
    task, batch = make_task(config()), read_batch(config())
    roles = {STUDENT: (GENERATOR, STUDENT), TEACHER: (GENERATOR, TEACHER), "prior": (GENERATOR,)}
    networks = {role: copy.deepcopy(task.network) for role in roles}
    for role, adapters in roles.items():
        networks[role].use(*adapters)
    text, rng = (batch["text"], batch["pooled"]), loop.make_generator(7)
    last, network, high = torch.tensor([1000.0]), networks[STUDENT], batch["high"]
    with torch.no_grad():
        z4 = network.predict(network.encode(batch["low"], rng), last, *text)
        x4 = network.decode(z4).clamp(-1, 1)
        view = resize(x4[..., 24:40, 24:40], 64, 64).clamp(-1, 1)
        start = network.encode(view, rng)
        z16 = network.predict(start, last, *text)
        x16 = network.decode(z16).clamp(-1, 1)
        small = resize(x16, 16, 16).clamp(-1, 1)
        target = networks[TEACHER].predict(network.encode(high, rng), last, *text)
        expected = {
            "first": task.lpips(x4, high).mean(),
            "second": task.lpips(small, high[..., 24:40, 24:40]).mean(),
            "quality": -(x16 / 2 + 0.5).std((1, 2, 3)).mean(),
            "prior": F.mse_loss(z16, networks["prior"].predict(start, last, *text)),
            "teacher": F.mse_loss(z4, target),
        }
        losses = task.compute_losses(batch, loop.make_generator(7))
    assert losses == expected
    assert min(abs(loss) for loss in losses.values()) > 0
    weights = {"first": 1, "second": 1, "quality": 0.4, "prior": 8, "teacher": 0.1}
    total = sum(weights[name] * loss for name, loss in losses.items())
    assert task.weigh(losses) == pytest.approx(total.item(), rel=1e-6)


def test_prior_is_exactly_0_at_the_start(config):
    task = make_task(config(), is_moved=False)
    losses = task.compute_losses(read_batch(config()), loop.make_generator(7))
    assert losses["prior"] == 0 < losses["teacher"]


@pytest.mark.parametrize("checkpointing", [True, False])
def test_only_the_new_lora_gets_gradients(config, checkpointing):
    task = make_task(config(checkpointing=checkpointing))
    found = find_gradients(task, read_batch(config()))
    names = {name for name in task.network.get_loras() if ".zoom." in name}
    assert found.keys() == names
    assert len(names) == 2 * 2 * 6  # of two blocks
    unused = {name.partition(".lora_")[0] for name, gradient in found.items() if not gradient.any()}
    # in the last block the text stream ends, so nothing reads what its queries find
    assert unused == {"transformer_blocks.1.attn.add_q_proj"}


def test_the_second_zoom_trains_the_first(config):
    batch, gradients = read_batch(config()), []
    second_only = {name: float(name == "second") for name in LOSSES}
    for through in (True, False):
        task = make_task(config(weights=second_only, through_first_zoom=through))
        gradients.append(flatten(find_gradients(task, batch)))
    share = (gradients[0] - gradients[1]).norm() / gradients[0].norm()
    assert share > 0.1


@pytest.mark.parametrize("left_out", LOSSES)
def test_weight_0_leaves_a_loss_out(config, left_out):
    weights = {"first": 1.0, left_out: 0.0}
    task = make_task(config(weights=weights))
    losses = task.compute_losses(read_batch(config()), loop.make_generator(7))
    assert losses.keys() == {*LOSSES} - {left_out}
    assert (task.network.transformer.peft_config.keys() >= {TEACHER}) == (left_out != "teacher")


def test_quality_is_left_out_without_a_score(config):
    task = make_task(config(score=""))
    losses = task.compute_losses(read_batch(config()), loop.make_generator(7))
    assert losses.keys() == {*LOSSES} - {"quality"}


@pytest.mark.parametrize("alone", ["prior", "quality", "teacher"])
def test_a_training_needs_a_loss_on_held_out_crops(config, alone):
    weights = dict.fromkeys(LOSSES, 0.0) | {alone: 1.0}
    with pytest.raises(ValueError, match="weights: one of first, second and quality, which needs"):
        config(weights=weights, score="")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("musiq", "is MUSIQ, which tools/evaluate reports"),
        ("renamed", "is MANIQA, which tools/evaluate reports"),
        ("detached", "must give a tensor with a gradient"),
        ("constant", "is zero or not finite"),
        ("missing", "cannot be loaded"),
    ],
)
def test_scores_that_must_not_train(config, name, message):
    with pytest.raises(ValueError, match=message):
        make_task(config(score=f"{__name__}:{name}"))


def test_every_network_that_scores_is_refused(monkeypatch):
    from tools.evaluate.iqa import PYIQA_NAMES

    for name, variant in PYIQA_NAMES.items():
        monkeypatch.setitem(globals(), name, Pyiqa())
        monkeypatch.setattr(Pyiqa, "metric_name", variant)
        for function in (name, "renamed"):
            with pytest.raises(ValueError, match=f"is {name.upper()}, which"):
                load_score(f"{__name__}:{function}", CPU)


def test_the_teacher_is_the_average(config):
    settings = config(steps=2, teacher_decay=0.75, check_every=9)
    task, seen = make_task(settings, is_moved=False), []
    finish = task.finish_step

    def record(step):
        seen.append([p.clone() for p in task.network.list_parameters(STUDENT)])
        return finish(step)

    start = [p.clone() for p in task.network.list_parameters(STUDENT)]
    task.finish_step = record
    crops = open_crops(settings), open_crops(settings, held_out=True)
    loop.train(settings, task, *crops, loop.make_accelerator(settings))
    for first, second, third, average in zip(
        start, *seen, task.network.list_parameters(TEACHER), strict=True
    ):
        expected = 0.75 * (0.75 * first + 0.25 * second) + 0.25 * third
        assert torch.allclose(average, expected, atol=1e-7)


def test_patience_ends_a_training_and_the_best_is_kept(config, monkeypatch):
    settings = config(steps=9, check_every=1, patience=2, save_every=9)
    script = iter([-1.0, -1.5, -1.5009, -1.4])  # less than a thousandth is no gain
    weights = []

    def measure(task):
        weights.append({name: w.clone() for name, w in task.get_student().items()})
        return next(script)

    monkeypatch.setattr(CrossScale, "measure", measure)
    train(settings)
    assert [entry["held_out"] for entry in read_log(settings)] == [-1.0, -1.5, -1.5009, -1.4]
    kept = read_weights(settings.out / "result" / LORA_FILE).lora
    for name, weight in weights[1].items():
        assert torch.equal(kept[f"transformer.{name.replace('.zoom.', '.')}"], weight)
    train(settings)  # it has ended
    assert len(read_log(settings)) == 4


def test_processes_end_together(cross_scale_parts, tmp_path):
    """Alone, the first would find a gain each time, and the second never one."""
    data = save_crops(tmp_path / "data", side=64)
    index = json.loads((data / "crops.json").read_text())
    index["crops"][0]["held_out"] = True
    (data / "crops.json").write_text(json.dumps(index))
    weights = {name: float(name == "quality") for name in LOSSES}
    path = write_config(
        tmp_path / "run.yaml",
        cross_scale_parts | {"data": data},
        **{"score": "tests.train.measure:disagree", "weights": weights, "accumulation": 1},
        **{"steps": 6, "check_every": 1, "patience": 2, "rank": 2},
    )
    start("cross-scale", path, processes=2)
    assert len(lines(tmp_path / "run" / "losses.jsonl")) == 3


def test_measurements_do_not_change_a_training(config):
    """And they are the same at any time."""
    settings = config(check_every=1)
    task = make_task(settings)
    before = task.network.active, [p.clone() for p in task.network.list_parameters(STUDENT)]
    with torch.no_grad():
        assert task.measure() == task.measure()
    assert before[0] == task.network.active
    assert all(map(torch.equal, before[1], task.network.list_parameters(STUDENT)))


def test_an_interrupted_training_continues_exactly(config, monkeypatch):
    settings = {"steps": 5, "check_every": 1, "save_every": 2, "patience": 3}
    whole, broken = config("whole", **settings), config("broken", **settings)
    train(whole)
    compute, calls = CrossScale.compute_gradients, []

    def fail(task, *arguments):
        calls.append(1)
        if len(calls) > 7:  # in step 4
            raise KeyboardInterrupt
        return compute(task, *arguments)

    monkeypatch.setattr(CrossScale, "compute_gradients", fail)
    with pytest.raises(KeyboardInterrupt):
        train(broken)
    monkeypatch.undo()
    train(broken)
    assert read_log(whole) == read_log(broken)
    first, second = (load_file(run.out / "result" / LORA_FILE) for run in (whole, broken))
    assert first.keys() == second.keys()
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())


def test_the_node_gives_the_result_of_training(config, pack, tmp_path):
    task = make_task(config())
    task.export(tmp_path / "cross_scale", 1)
    _, loaded = load_trained(config(), tmp_path, "cross_scale")
    image, expected = inputs()[0], to_frame(enlarge(task.network))
    assert relative_error(run_step(*loaded, image), expected) < 1e-3
    task.network.use(GENERATOR)
    assert relative_error(to_frame(enlarge(task.network)), expected) > 1e-2


def test_a_result_is_not_fine_tuned_again(config, tmp_path):
    train(config(steps=1, check_every=9))
    again = tmp_path / "run" / "result" / LORA_FILE
    with pytest.raises(ValueError, match="12 layers more than an SR LoRA"):
        make_task(config("again", start_lora=str(again)))


def answer(*_):
    """A VLM that sees how bright the two images are."""
    return lambda pairs: [
        " ".join(str(int(sum(image.resize((1, 1)).getpixel((0, 0))))) for image in pair)
        for pair in pairs
    ]


def test_prompts_beforehand(config, monkeypatch):
    settings = config(vlm="model", out="prompts")
    encoded, vlms = [], []

    def load(*_):
        vlm = answer()
        vlms.append(weakref.ref(vlm))
        return vlm

    def encode(prompts, data, _):
        assert [vlm() for vlm in vlms] == [
            None
        ]  # it is unloaded before the text encoders are loaded
        encoded.extend(prompts)
        for prompt in prompts:
            value = float(prompt.split()[0])
            tensors = {"text": torch.full((5, 4096), value), "pooled": torch.full((2048,), value)}
            save_file(tensors, find_text_file(data, prompt))

    monkeypatch.setattr(second_prompts, "load_writer", load)
    monkeypatch.setattr(second_prompts, "encode_prompts", encode)
    task = make_task(settings)
    path = settings.out / "second_prompts.json"
    prompts = json.loads(path.read_text())
    assert prompts.keys() == {f"photo#{i}" for i in range(6)}
    assert sorted(encoded) == sorted(prompts.values())
    # what the SR LoRA alone makes
    task.network.use(GENERATOR)
    batch = read_batch(settings)
    text = task.texts.embed(batch)
    with torch.no_grad():
        _, image = task.zoom(task.network.encode(batch["low"]), text)
    view = cross_scale.enlarge_middle(image)
    (expected,) = answer()(second_prompts.pair_images(image, view))
    assert prompts[batch["name"][0]] == expected
    text, pooled = task.texts.embed_second(batch, image, view)
    assert text.shape == (1, 5, 4096)
    assert set(text.flatten().tolist()) | set(pooled.flatten().tolist()) == {
        float(expected.split()[0])
    }
    monkeypatch.setattr(second_prompts, "load_writer", None)  # nothing is asked twice
    assert make_task(settings).texts.prompts == prompts


def test_live_prompts(config, monkeypatch):
    settings = config(vlm="model", second_prompts="live", text_cached=False)
    asked = []

    def encode(prompts):
        asked.extend(prompts)
        return torch.zeros(len(prompts), 5, 4096), torch.zeros(len(prompts), 2048)

    monkeypatch.setattr(second_prompts, "load_writer", answer)
    monkeypatch.setattr(texts, "load_text_encoders", lambda _: encode)
    task, batch = make_task(settings), read_batch(settings)
    losses = task.compute_losses(batch, loop.make_generator(7))
    assert losses["second"].requires_grad
    assert asked[0] == batch["prompt"][0]
    first, view = (int(value) for value in asked[1].split())
    assert len(asked) == 2
    assert 0 < min(first, view) < max(first, view) < 765


def test_live_prompts_are_not_cached(config):
    with pytest.raises(ValueError, match="text_cached: prompts that are written in each step"):
        config(vlm="model", second_prompts="live")
