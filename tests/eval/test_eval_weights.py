import re
import socket
import sys
import threading
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from urllib.request import urlopen

import pytest
import torch
import torchmetrics.functional.image as functional
import torchvision

from coz.resample import resize
from tests.support.images import add_noise, blur
from tools.evaluate.metrics import ALL_METRICS, METRICS, WEIGHTLESS_MEASURES, Meter
from tools.evaluate.perceptual import ALEXNET, VGG16
from tools.evaluate.weights import block_network

from .jobs import measured


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Every test here: whoever opens a connection to another machine fails it."""
    connect = socket.socket.connect

    def local(self, address):
        assert address[0] in {"127.0.0.1", "::1"}, f"a connection to {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local)


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory):
    """The two backbones' files with random features; the unused classifiers take one number each."""
    home = tmp_path_factory.mktemp("torch")
    (home / "hub" / "checkpoints").mkdir(parents=True)
    torch.manual_seed(0)
    for network, file in ((torchvision.models.alexnet, ALEXNET), (torchvision.models.vgg16, VGG16)):
        with torch.device("meta"):
            shapes = network().state_dict()
        state = {name: torch.zeros(1).expand(shape.shape) for name, shape in shapes.items()}
        for name, shape in shapes.items():
            if re.fullmatch(r"features.*weight", name):
                state[name] = torch.randn(shape.shape) / shape[0].numel() ** 0.5
        torch.save(state, home / "hub" / "checkpoints" / file.path.name)
    return home


@pytest.fixture
def torch_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path


def test_missing_weights_are_named_and_nothing_is_measured_in_their_place(torch_home, photo):
    meter = Meter(ALL_METRICS)
    places = {
        "lpips": ("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth", "checkpoints"),
        "dists": ("https://download.pytorch.org/models/vgg16-397923af.pth", "checkpoints"),
    }
    for name, (url, folder) in places.items():
        line = f"{name.upper()}: download {url} to {torch_home / 'hub' / folder}"
        assert meter.missing[name] == meter.missing[f"p_{name}"] == line
    assert meter.missing.keys() == METRICS.keys() - WEIGHTLESS_MEASURES.keys()
    assert measured(meter, photo, photo).keys() == WEIGHTLESS_MEASURES.keys()
    assert not list(torch_home.rglob("*.*"))


@pytest.mark.skipif(find_spec("pyiqa") is not None, reason="pyiqa is installed here")
def test_scores_of_pyiqa_are_missing_without_it(torch_home):
    missing = Meter(["niqe", "musiq", "maniqa", "clipiqa"]).missing
    assert "pyiqa is not installed" in missing["niqe"]
    assert f"niqe_modelparameters.mat to {torch_home / 'hub' / 'pyiqa'}" in missing["niqe"]
    assert "musiq_koniq_ckpt-e95806b9.pth" in missing["musiq"]
    assert "MANIQA_PIPAL-ae6d356b.pth" in missing["maniqa"]
    assert "hf download timm/vit_base_patch8_224" in missing["maniqa"]
    assert f"RN50.pt to {torch_home / 'hub' / 'clip'}" in missing["clipiqa"]


def test_weights_that_are_there_are_used(random_weights, monkeypatch, photo):
    monkeypatch.setenv("TORCH_HOME", str(random_weights))
    meter = Meter(["lpips", "dists", "p_lpips", "p_dists"])
    assert meter.missing == {}
    photo = photo[..., :96, :96].contiguous()
    sr, lq = add_noise(photo, 0.1), resize(photo, 24, 24).clamp(0, 1)
    scores = measured(meter, sr, photo, lq)
    lpips = functional.learned_perceptual_image_patch_similarity
    dists = functional.deep_image_structure_and_texture_similarity
    with torch.inference_mode():
        direct = float(lpips(sr, photo, net_type="alex", normalize=True))
        assert scores["lpips"] == pytest.approx(direct, rel=1e-5)
        assert scores["dists"] == pytest.approx(float(dists(sr, photo)), rel=1e-5)
    # 24 pixels are fewer than the networks take: both pictures are brought to 64.
    small = (resize(resize(sr, 24, 24).clamp(0, 1), 64, 64), resize(lq, 64, 64))
    again = measured(meter, *(image.clamp(0, 1) for image in small))
    assert scores["p_lpips"] == pytest.approx(again["lpips"], rel=1e-5)
    assert scores["p_dists"] == pytest.approx(again["dists"], rel=1e-5)
    assert scores["p_lpips"] != pytest.approx(scores["lpips"], rel=0.1)

    same = measured(meter, photo, photo, lq=photo)
    assert same == {name: pytest.approx(0, abs=1e-5) for name in scores}
    for change, amounts in ((blur, (0.5, 4)), (add_noise, (0.01, 0.3))):
        rows = [measured(meter, change(photo, x), photo) for x in amounts]
        for name in ("lpips", "dists"):
            values = [row[name] for row in rows]
            assert 0 < values[0] < values[1]
    assert measured(meter, sr, photo, lq=photo[..., :2, :2].contiguous()).keys() == scores.keys()


@pytest.mark.parametrize("damage", ["truncated", "text", "of another network"])
def test_damaged_weights_are_told_in_one_line(random_weights, torch_home, damage):
    good = random_weights / "hub" / "checkpoints"
    bad = torch_home / "hub" / "checkpoints" / ALEXNET.path.name
    bad.parent.mkdir(parents=True)
    if damage == "of another network":
        bad.symlink_to(good / VGG16.path.name)
    else:
        whole = (good / ALEXNET.path.name).read_bytes()
        bad.write_bytes(whole[: len(whole) // 2] if damage == "truncated" else b"<html>")
    line = Meter(["lpips"]).missing["lpips"]
    assert line.startswith("LPIPS does not load (")
    assert "): alexnet-owt-7be5be79.pth is damaged or another file of that name; download" in line
    assert line.endswith(f"alexnet-owt-7be5be79.pth to {bad.parent}")
    assert "\n" not in line
    assert "Traceback" not in line


class Score(torch.nn.Module):
    def __init__(self, name, device):
        super().__init__()
        self.value = torch.full((1, 1), float(len(name)), device=device)

    def forward(self, image):
        return self.value + image.mean()


def stand_in(monkeypatch, create_metric):
    """A package of pyiqa's name: this project never installs the real one."""
    package = module_from_spec(ModuleSpec("pyiqa", None))
    package.create_metric = create_metric
    monkeypatch.setitem(sys.modules, "pyiqa", package)


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_pyiqa_is_called_with_the_papers_ids(torch_home, monkeypatch, photo):
    stand_in(monkeypatch, Score)
    names = ["niqe", "musiq", "maniqa", "clipiqa"]
    assert [line.split(":")[0].lower() for line in Meter(names).missing.values()] == names
    for place in ("pyiqa/niqe_modelparameters.mat", "pyiqa/musiq_koniq_ckpt-e95806b9.pth",
                  "pyiqa/MANIQA_PIPAL-ae6d356b.pth", "clip/RN50.pt"):  # fmt: skip
        touch(torch_home / "hub" / place)
    meter = Meter(names)
    assert meter.missing == {}
    mean = float(photo.mean())
    ids = ("niqe", "musiq", "maniqa-pipal", "clipiqa")
    expected = {name: len(i) + mean for name, i in zip(names, ids, strict=True)}
    assert measured(meter, photo, None) == pytest.approx(expected, rel=1e-5)


def test_a_library_that_downloads_is_stopped_and_told(torch_home, monkeypatch):
    address = "https://huggingface.co/timm/vit_base_patch8_224"
    stand_in(monkeypatch, lambda name, device: urlopen(address))
    touch(torch_home / "hub" / "pyiqa" / "MANIQA_PIPAL-ae6d356b.pth")
    line = Meter(["maniqa"]).missing["maniqa"]
    assert "a metric tried to use the internet; nothing is downloaded" in line


def test_only_the_loading_thread_is_offline():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        socket.create_connection(address).close()
        reached = []
        with block_network():
            with pytest.raises(OSError, match="nothing is downloaded"):
                socket.create_connection(address)
            thread = threading.Thread(
                target=lambda: reached.append(socket.create_connection(address).close())
            )
            thread.start()
            thread.join()
        socket.create_connection(address).close()
    assert len(reached) == 1
