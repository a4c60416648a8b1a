"""What goes wrong in use, in a real server: interrupts, memory that runs out, kills, full disks."""

import contextlib
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

from coz.chain.folder import UNFINISHED_PREFIX, read_chain
from tools.host import ROOT
from tools.host.client import PromptError, run_prompt
from tools.host.workflow import find_node, read_prompt

from .faulty import FaultyServer
from .prompts import chain_prompt, make_node, steps_run

PAPER = ROOT / "workflows" / "4 Chain-of-Zoom as in the paper (AR-2).json"
LONG = pytest.mark.long

NEVER_KEPT = {"coz_input", "coz_collect"}
"""Of a loop's children: sooner run again than kept, see nodes/host/cache.py."""


@pytest.fixture(scope="module")
def models(models, tmp_path_factory):
    """The same files by links of this module's own: a test takes one away."""
    paths = Path(models[-1])
    folder = tmp_path_factory.mktemp("models") / "models"
    shutil.copytree(paths.parent, folder, copy_function=os.link)
    own = folder / paths.name
    own.unlink()
    own.write_text(paths.read_text("utf-8").replace(str(paths.parent), str(folder)), "utf-8")
    return [models[0], str(own)]


@pytest.fixture(scope="module")
def host(models, tmp_path_factory):
    server = FaultyServer(tmp_path_factory.mktemp("faults"), models)
    yield server
    server.close()


class Chains:
    """Prompts that zoom into the same pixels, each from a file of its own: no cache joins them."""

    def __init__(self, host):
        self.host = host
        self.count = 0

    def picture(self, name="rocket.jpg"):
        self.count += 1
        copy = f"{self.count} {name}"
        shutil.copy(ROOT / "pictures" / name, self.host.folder / "input" / copy)
        return make_node("LoadImage", image=copy)

    def save(self, prompt, loop):
        # A picture shown before the loop expands: with it the host alone would forget the steps.
        prompt["input"] = make_node("PreviewImage", images=prompt[loop]["inputs"]["image"])
        prefix = f"chain {self.count}"
        prompt["save"] = make_node("CoZSaveChain", chain=[loop, 3], filename_prefix=prefix)
        return prompt

    def paper(self, **inputs):
        """The paper's workflow on small frames: a vision-language model, text encoders, SD3."""
        prompt = read_prompt(PAPER)
        prompt[find_node(prompt, "CoZSamplePicture")] = self.picture()
        loop = find_node(prompt, "CoZChainLoop")
        prompt[loop]["inputs"] |= {"size": 32, "steps": 2, "prompting.max_tokens": 3} | inputs
        return self.save(prompt, loop)

    def built_in(self, **inputs):
        """The built-in upscale model."""
        prompt = chain_prompt(**{"steps": 2} | inputs)
        prompt["source"] = self.picture()
        return self.save(prompt, "loop")

    def saved(self, run):
        """The frames of the chain that a prompt saved."""
        place = run.outputs["save"]["images"][0]["subfolder"]
        return read_chain(self.host.folder / "output" / place).frames


@pytest.fixture(scope="module")
def chains(host):
    return Chains(host)


@pytest.fixture(scope="module")
def expected(chains, host):
    """Kind of chain -> its frames where nothing goes wrong."""
    made = {}

    def frames(kind):
        if kind not in made:
            made[kind] = chains.saved(run_prompt(host.url, getattr(chains, kind)()))
        return made[kind]

    return frames


def same(frames, others):
    return all(torch.equal(a, b) for a, b in zip(frames, others, strict=True))


def difference(frames, others):
    return max((a - b).abs().max() for a, b in zip(frames, others, strict=True))


class Watcher:
    """The children of the loop that finished, and the node in which the fault was reached."""

    def __init__(self, do=lambda: None):
        self.finished = set()
        self.reached = None
        self.do = do

    def __call__(self, event):
        if event["type"] == "progress_state":
            states = event["data"]["nodes"].values()
            names = [s["node_id"].rpartition(".")[2] for s in states if s["state"] == "finished"]
            self.finished |= {name for name in names if name.startswith("coz_")}
        if event["type"] == "reached":
            self.reached = event["data"]["node"].rpartition(".")[2]
            self.do()


def children(run):
    names = (node.rpartition(".")[2] for node in run.executed)
    return {name for name in names if name.startswith("coz_")}


def goes_on(host, chains, prompt, finished, frames):
    """The prompt works again, runs nothing that was finished, and gives what it always gives."""
    again = run_prompt(host.url, prompt)
    assert children(again) & finished <= NEVER_KEPT
    assert same(chains.saved(again), frames)


def left_over(host):
    return list((host.folder / "output").rglob(f"{UNFINISHED_PREFIX}*"))


@pytest.mark.parametrize(
    ("place", "call", "node"),
    [
        ("first frame", 1, "coz_first"),
        pytest.param("VLM's eyes", 2, "coz_prompt_2", marks=LONG),
        ("VLM", 2, "coz_prompt_1"),
        pytest.param("text encoder", 2, "coz_text_2", marks=LONG),
        pytest.param("VAE encoder", 2, "coz_sr_2", marks=LONG),
        ("network", 2, "coz_sr_2"),
        pytest.param("VAE decoder", 2, "coz_sr_2", marks=LONG),
        pytest.param("colour", 2, "coz_fix_2", marks=LONG),
        pytest.param("check", 2, "coz_check_2", marks=LONG),
        ("collect", 1, "coz_collect"),
        pytest.param("save", 1, "save", marks=LONG),
        ("written file", 2, "save"),
    ],
)
def test_an_interrupt_at_any_stage_costs_that_stage_alone(
    host, chains, expected, place, call, node
):
    frames = expected("paper")
    prompt = chains.paper()
    watcher = Watcher(lambda: host.post("interrupt"))
    with host.fault(place, "wait", call), pytest.raises(PromptError, match="interrupted"):
        run_prompt(host.url, prompt, watcher)
    assert watcher.reached == node
    assert left_over(host) == []
    goes_on(host, chains, prompt, watcher.finished, frames)


FALLS_BACK, FAILS = "falls back", "fails"
OUT_OF_MEMORY = r"Allocation on device \(injected\)\n{}\s+This error means you ran out of memory"
HINTS = {
    "upscale model": r"Even the smallest part .*, or start ComfyUI with --cpu",
    "VLM's eyes": r"The vision-language model did not fit .*, or start ComfyUI with --novram, .*",
    "VLM": r"The vision-language model did not fit .*, or start ComfyUI with --novram, .*",
    "text encoder": r"The text encoders did not fit .*, or start ComfyUI with --novram, .*",
}
VIEW_HINT = r"A view of this size did not fit .*, or start ComfyUI with --novram, .*"
TILED = 1e-4
"""Of 1: what the host's tiled VAE may round otherwise. A tile holds the whole frame."""


@pytest.mark.parametrize("call", [pytest.param(1, marks=LONG), 2])
@pytest.mark.parametrize(
    ("kind", "place", "times", "outcome"),
    [
        ("built_in", "upscale model", 1, FALLS_BACK),
        ("built_in", "upscale model", 99, FAILS),
        pytest.param("paper", "VLM's eyes", 1, FAILS, marks=LONG),
        ("paper", "VLM", 1, FAILS),
        pytest.param("paper", "text encoder", 1, FAILS, marks=LONG),
        ("paper", "VAE encoder", 1, FALLS_BACK),
        pytest.param("paper", "VAE encoder", 99, FAILS, marks=LONG),
        ("paper", "network", 1, FAILS),
        pytest.param("paper", "VAE decoder", 1, FALLS_BACK, marks=LONG),
        pytest.param("paper", "VAE decoder", 99, FAILS, marks=LONG),
    ],
)
def test_memory_that_runs_out_at_any_network_call(
    host, chains, expected, kind, place, times, outcome, call
):
    frames = expected(kind)
    prompt = getattr(chains, kind)()
    watcher = Watcher()
    with host.fault(place, "out of memory", call, times):
        if outcome == FALLS_BACK:
            found = chains.saved(run_prompt(host.url, prompt, watcher))
            assert host.faults()["calls"][0] > call
            assert difference(found, frames) < TILED
            return
        with pytest.raises(PromptError, match=OUT_OF_MEMORY.format(HINTS.get(place, VIEW_HINT))):
            run_prompt(host.url, prompt, watcher)
    goes_on(host, chains, prompt, watcher.finished, frames)


def files(host):
    """Path -> content of all in the output folder."""
    folder = host.folder / "output"
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("place", "call"),
    [
        ("written file", 3),
        pytest.param("first frame", 1, marks=LONG),
        pytest.param("VLM", 2, marks=LONG),
        pytest.param("network", 2, marks=LONG),
        pytest.param("collect", 1, marks=LONG),
        pytest.param("written file", 1, marks=LONG),
    ],
)
def test_a_killed_server_leaves_what_was_saved(host, chains, expected, place, call):
    frames = expected("paper")
    prompt = chains.paper()
    before = files(host)
    with (
        host.fault(place, "wait", call),
        pytest.raises((PromptError, OSError), match=r"closed|reset|disconnected"),
    ):
        run_prompt(host.url, prompt, Watcher(host.kill))
    assert before.items() <= files(host).items()
    assert len(left_over(host)) == (place == "written file")
    host.restart()
    assert host.get("queue") == {"queue_running": [], "queue_pending": []}
    info = host.get("object_info/CoZLoadChain")
    listed = info["CoZLoadChain"]["input"]["optional"]["folder"][1]["options"]
    assert sorted(listed) == sorted(path.parent.name for path in before if path.suffix == ".json")
    for name in listed:
        read_chain(host.folder / "output" / name)
    for unfinished in left_over(host):
        os.utime(unfinished, (0, 0))
    goes_on(host, chains, prompt, set(), frames)
    assert left_over(host) == []


@pytest.fixture
def disk(host):
    """Puts a small disk of its own in the place of one of the server's folders."""
    with contextlib.ExitStack() as stack:

        def mount(name, size):
            folder = host.folder / name
            folder.mkdir(exist_ok=True)
            line = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
            if sys.platform != "linux" or subprocess.run(line, capture_output=True).returncode:
                pytest.skip("this machine does not let the tests mount a disk of their own")
            stack.callback(subprocess.run, ["umount", str(folder)], check=True)
            return folder

        yield mount


def fill(folder, left):
    """Leave so many bytes free."""
    (folder / "filling").write_bytes(bytes(shutil.disk_usage(folder).free - left))


@pytest.mark.parametrize(
    "trouble", [pytest.param("full at once", marks=LONG), "full in the middle", "read-only"]
)
def test_an_output_folder_that_takes_nothing(host, chains, expected, disk, trouble):
    frames = expected("built_in")
    prompt = chains.built_in()
    half = next((host.folder / "output").rglob("source.png")).stat().st_size // 2
    folder = disk("output", 8 * 2**20)
    if trouble == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    else:
        fill(folder, 0 if trouble == "full at once" else half)
    reason = "Read-only file system" if trouble == "read-only" else "No space left on device"
    watcher = Watcher()
    with pytest.raises(PromptError, match=rf"chain could not be saved as .*: {reason}\. Nothing"):
        run_prompt(host.url, prompt, watcher)
    assert [path.name for path in folder.rglob("*") if path.name != "filling"] == []
    if trouble == "read-only":
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
    else:
        (folder / "filling").unlink()
    goes_on(host, chains, prompt, watcher.finished, frames)


def test_a_full_disk_under_the_previews(host, chains, expected, disk):
    frames = expected("built_in")
    prompt = chains.built_in()
    folder = disk("temp", 2**20)
    fill(folder, 0)
    watcher = Watcher()
    with pytest.raises(PromptError, match="No space left on device"):
        run_prompt(host.url, prompt, watcher)
    (folder / "filling").unlink()
    goes_on(host, chains, prompt, watcher.finished, frames)


SHARD = "model-00002-of-00002.safetensors"


@contextlib.contextmanager
def gone(host, path):
    """The file is not there, and the server has nothing in memory."""
    host.post("free", {"unload_models": True, "free_memory": True})
    away = path.with_name("away")
    path.rename(away)
    try:
        yield
    finally:
        away.rename(path)


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("built_in", "mine.safetensors", "model_name: 'mine.safetensors' not in"),
        ("paper", "model_20001.pkl", r"model_20001\.pkl is not in models/loras\. Put the file"),
        pytest.param("paper", "vae_encoder_20001.pt", "vae_encoder_20001.pt is not in", marks=LONG),
        pytest.param("paper", SHARD, SHARD, marks=LONG),
    ],
)
def test_a_model_file_that_is_deleted_between_two_prompts(
    host, chains, expected, models, kind, name, message
):
    frames = expected(kind)
    prompt = getattr(chains, kind)()
    if kind == "built_in":
        path = host.folder / "upscale_models" / name
        path.write_bytes((ROOT / "models" / "coz_lite_x4.safetensors").read_bytes())
        prompt["model"]["inputs"]["model_name"] = name
    else:
        (path,) = Path(models[-1]).parent.rglob(name)
    assert same(chains.saved(run_prompt(host.url, prompt)), frames)
    prompt = getattr(chains, kind)() | ({"model": prompt["model"]} if kind == "built_in" else {})
    with gone(host, path), pytest.raises(PromptError, match=message):
        run_prompt(host.url, prompt)
    goes_on(host, chains, prompt, set(), frames)


def test_two_clients_at_once_get_each_their_own(host, chains):
    inputs = {"one": {}, "other": {"center_x": 0.6, "center_y": 0.2, "steps": 1}}
    one, other = (chains.built_in(**changed) for changed in inputs.values())
    runs = {}

    def queue(name, prompt, on_event=lambda event: None):
        runs[name] = run_prompt(host.url, prompt, on_event)

    second = threading.Thread(target=queue, args=("other", other))

    def start_the_other():
        second.start()
        while not host.get("queue")["queue_pending"]:
            time.sleep(0.05)
        host.post("faults")  # the first goes on

    with host.fault("upscale model", "wait", 1):
        queue("one", one, Watcher(start_the_other))
    second.join(120)
    for name, own, others in (("one", 2, 1), ("other", 1, 2)):
        lines = [text for _, text in runs[name].notices]
        depth = {1: "1 step, 4x", 2: "2 steps, 16x"}
        assert any(text.startswith(depth[own]) for text in lines)
        assert not any(f"of {others}" in text or text.startswith(depth[others]) for text in lines)
    # As alone, from files of their own.
    for name, changed in inputs.items():
        alone = run_prompt(host.url, chains.built_in(**changed))
        assert same(chains.saved(runs[name]), chains.saved(alone))


PICTURES = ["astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "rocket.jpg"]
SETTLED = 20
"""Prompts after which the memory must stand still."""


@pytest.mark.parametrize("count", [25, pytest.param(200, marks=LONG)])
def test_memory_stands_still_over_many_prompts(host, count, record_property):
    if count > 100:
        host.restart()  # nothing that went wrong before is in its memory
    draw = random.Random(0)
    process = psutil.Process(host.pid)
    resident = []
    for seed in range(count):
        place = {"center_x": draw.random(), "center_y": draw.random()}
        prompt = chain_prompt(steps=2, seed=seed, **place)
        prompt["source"]["inputs"]["picture"] = PICTURES[seed % len(PICTURES)]
        prompt["input"] = make_node("PreviewImage", images=["source", 0])
        assert steps_run(run_prompt(host.url, prompt).executed) == [1, 2]
        resident.append(process.memory_info().rss)
    record_property("memory", [round(size / 1e6) for size in resident])
    # The pictures differ in size, so memory goes up and down within a round of them.
    last_round = resident[SETTLED - len(PICTURES) : SETTLED]
    assert max(resident[SETTLED:]) <= 1.05 * max(last_round)
