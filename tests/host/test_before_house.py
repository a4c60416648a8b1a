"""What people have on disk from before the code was put into rooms: it loads and runs."""

import json
import shutil

import pytest
import torch

from coz.chain.folder import read_chain, write_files
from coz.chain.zoom_chain import derive_step_seed
from tools.host import ROOT
from tools.host.workflow import find_node
from tools.train_grpo.marks import read_marks

from .executor import validate
from .prompts import kept_prompt, make_node, steps_run

BEFORE = ROOT / "tests" / "data" / "before_house"
PROMPTS = json.loads((BEFORE / "prompts.json").read_text("utf-8"))


def test_a_saved_chain_is_read_and_written_again_alike(tmp_path):
    chain = read_chain(BEFORE / "chain")
    assert (chain.scale, chain.target, chain.steps) == (4.0, (0.3, 0.6), 2)
    assert chain.windows == ((0, 13, 32, 32), (10, 12, 8, 8), (14, 11, 8, 8))
    assert chain.seeds == (derive_step_seed(3, 1), derive_step_seed(3, 2))
    assert (chain.agreements, chain.invented) == ((50.1, 57.7), (0.0727, 0.0221))
    write_files(chain, tmp_path)
    for file in (BEFORE / "chain").glob("*.png"):
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()
    old, new = (json.loads((f / "chain.json").read_text()) for f in (BEFORE / "chain", tmp_path))
    assert {key: new[key] for key in old} == old


def test_chain_loop_goes_on_with_a_saved_chain(executor, keep, output_folder):
    shutil.copytree(BEFORE / "chain", output_folder / "before")
    prompt = kept_prompt(steps=3, size=32, image=("load", 1), chain=["load", 0])
    prompt["load"] = make_node("CoZLoadChain", folder="before")
    assert steps_run(executor("CLASSIC").run(prompt)) == [3]
    chain = read_chain(BEFORE / "chain")
    assert torch.equal(keep[0]["scales"][:3].movedim(-1, 1), torch.cat(chain.frames[1:]))
    assert keep[0]["chain"].windows[:3] == chain.windows


def test_marks_are_read():
    marks, skipped = read_marks(BEFORE / "marks" / "preferences.jsonl")
    assert skipped == {}
    assert [mark[2:] for mark in marks] == [("hair", True, 4.0, ""), ("hair", False, 16.0, "")]
    assert all(mark.previous.is_file() and mark.zoomed.is_file() for mark in marks)


@pytest.mark.parametrize("name", PROMPTS)
def test_the_prompt_of_a_template_is_valid(listed_models, name):
    _, errors = validate(PROMPTS[name])
    # A file that the tests have not, in a loader of the host, is all that may be wrong.
    assert {error["class_type"] for error in errors.values()} <= {"CLIPLoader"}


def test_the_first_template_s_prompt_runs(executor, output_folder):
    prompt = PROMPTS["1 Zoom 256x (no downloads)"]
    prompt[find_node(prompt, "CoZChainLoop")]["inputs"]["size"] = 32
    executed = executor("CLASSIC").run(prompt, find_node(prompt, "CoZZoomViewer"))
    assert steps_run(executed) == [1, 2, 3, 4]
