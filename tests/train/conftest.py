import json
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from skimage import data as samples

from tools.host import ROOT
from tools.train_grpo.environment import python_path

from .tiny_model import save_tiny_model, save_toy_model

TIMEOUT = 400


class Ended(subprocess.CompletedProcess):
    """A command of the tool that has ended."""

    @property
    def error(self) -> str:
        """The last line of what it said, which is all where it did not crash."""
        assert "Traceback" not in self.stderr
        return self.stderr.strip().splitlines()[-1]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def launch(processes):
    """What starts a command in several processes."""
    several = [python_path().with_name("accelerate"), "launch", "--multi_gpu", "--num_machines", 1]
    return [*several, "--num_processes", processes, "--mixed_precision", "no"]


@pytest.fixture(scope="session")
def tool():
    """python -m tools.train_grpo, in the environment of `make train-env`."""

    def run(*arguments, launcher=()):
        command = [*(launcher or [python_path()]), "-m", "tools.train_grpo", *arguments]
        result = subprocess.run(
            [str(part) for part in command],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        return Ended(result.args, result.returncode, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="session")
def start():
    """As tool, but it goes on; to be killed."""

    def begin(*arguments):
        command = [str(python_path()), "-m", "tools.train_grpo", *map(str, arguments)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, cwd=ROOT, env=environment(), **quiet)

    return begin


@pytest.fixture(scope="session")
def in_training():
    """The JSON that code prints which runs where the packages for training are."""

    def run(code, *arguments):
        command = [python_path(), "-c", code, *map(str, arguments)]
        output = subprocess.check_output(command, cwd=ROOT, env=environment(), text=True)
        return json.loads(output.splitlines()[-1])

    return run


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """Six files of several kinds that can be used, in two folders."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "sub").mkdir()
    files = {"chelsea": "cat.jpg", "coffee": "coffee.png", "astronaut": "sub/astronaut.webp"}
    files |= {"brick": "sub/brick.tif", "grass": "grass.bmp", "moon": "moon.gif"}
    for name, file in files.items():
        Image.fromarray(np.asarray(getattr(samples, name)())).save(folder / file)
    return folder


@pytest.fixture(scope="session")
def pairs(tool, photographs, tmp_path_factory):
    """24 pairs of 56 x 56 pixels: four tokens a view."""
    out = tmp_path_factory.mktemp("pairs") / "out"
    result = tool(
        *("prepare", photographs, out, "--backbone", "crops", "--size", 56, "--steps", 2),
        *("--workers", 1, "--held-out", 0.2),
    )
    assert result.returncode == 0, result.stderr
    return out


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    return save_toy_model(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def sr_parts(tmp_path_factory):
    """The files that a config of tools.train_sr names."""
    from .tiny_sd3 import save_crops, save_tiny_sd3, save_vgg16

    folder = tmp_path_factory.mktemp("sr")
    return {
        "model": save_tiny_sd3(folder / "sd3"),
        "lpips": save_vgg16(folder / "vgg16.pth"),
        "data": save_crops(folder / "crops"),
    }


class ScriptedCritic(ThreadingHTTPServer):
    """Speaks as an OpenAI-compatible server does; what it answers is the test's.

    From the start it likes one word: 100 where an answer consists of nothing else.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict] = []
        self.answer = self.liking

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def liking(self, words: str) -> str:
        found = words.split()
        return f"Score: {100 * found.count('moss') / len(found):.1f}"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        text = body["messages"][-1]["content"][-1]["text"]
        words = text.removeprefix("Words: ").rpartition("\n")[0]
        answer = self.server.answer(words)
        status = 503 if answer is None else 200
        content = json.dumps({"choices": [{"message": {"content": answer}}]}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def critic():
    server = ScriptedCritic()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def config(tmp_path, pairs, toy, critic):
    """Writes a config of quick steps, with changes, and gives its path."""

    def write(name="run", **changes):
        told = {
            "model": str(toy),
            "data": str(pairs),
            "out": name,
            "seeds": [0],
            "held_out": 4,
            "critic": {"url": critic.url, "model": "scripted", "tries": 1},
            "rewards": {"answer_form": 0},
        }
        training = {
            "max_steps": 20,
            "num_generations": 4,
            "per_device_train_batch_size": 8,
            "per_device_eval_batch_size": 8,
            "gradient_accumulation_steps": 1,
            "gradient_checkpointing": False,
            "max_completion_length": 4,
            "learning_rate": 0.01,
            "save_steps": 5,
        }
        training |= changes.pop("training", {})
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**told, "training": training, **changes}), "utf-8")
        return path

    return write


def read(path: Path):
    return json.loads(path.read_text("utf-8"))


def lines(path: Path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
