"""tools/verify.py without ComfyUI, and the page about its reports."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from coz.networks.ram_tagger import RAMTagger, read_tag_list
from coz.weights.read import read_tagger
from tests.conftest import DATA
from tools import verify
from tools.host import DEFAULT_VERSION, ROOT
from tools.release import verified
from tools.verification import comfyui, tags
from tools.verification.files import ROLES, FoundModel, describe, inspect, to_entry

FLOAT8 = torch.float8_e4m3fn
ROLE = {role.name: role for role in ROLES}
LORA = ROLE["SR LoRA"]
UNWRITTEN = "verify.json cannot be written: .*--out FOLDER.* is above"


def found(path, role=LORA):
    one = FoundModel(role, [path], path.name)
    inspect(one)
    return one


def test_what_a_file_holds_is_told():
    one = found(DATA / "sr_lora_2block.pkl")
    assert (one.problem, one.count) == ("", 6)
    assert one.facts[0]["tensors"] == {"F32": 6}
    assert describe(one).endswith("6 tensors, but the published file has 94")
    assert to_entry(one)["as_published"] is False


def test_a_truncated_and_a_missing_file_are_named_by_their_role_alone(tmp_path):
    cut = tmp_path / "my own name.pkl"
    cut.write_bytes((DATA / "sr_lora_2block.pkl").read_bytes()[:2000])
    absent = tmp_path / "my absence.pkl"
    for path, sentence in ((cut, "download it again"), (absent, "but found none at")):
        one = found(path)
        assert sentence in one.problem
        text = verify.scrub(to_entry(one)["problem"], {"SR LoRA": one})
        assert sentence in text
        assert path.stem not in text
        assert tmp_path.as_posix() not in text


def test_a_file_of_rounded_weights_is_named(tmp_path):
    """Text encoders in float8 are usual, and change nothing that is compared."""
    path = tmp_path / "sd3_medium.safetensors"
    block = "model.diffusion_model.joint_blocks.{}.weight"
    weights = {block.format(i): torch.ones(2, 2).half() for i in range(24)}
    save_file(weights | {"text_encoders.t5xxl.w": torch.ones(2).to(FLOAT8)}, path)
    one = found(path, ROLE["SD3"])
    assert (one.problem, one.is_as_published) == ("", True)
    assert describe(one).endswith("24 transformer blocks, as published")
    weights[block.format(3)] = torch.ones(2, 2).to(FLOAT8)
    save_file(weights, path)
    problem = found(path, ROLE["SD3"]).problem
    assert problem.startswith("sd3_medium.safetensors: 1 of its weights are float8, which keeps 3 ")
    reason = "It runs, but cannot be compared with the published weights; take sd3_medium_in"
    assert reason in problem


def test_an_adapter_without_its_config_is_named(tmp_path):
    path = tmp_path / "adapter_model.safetensors"
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    shapes = {"A": (4, 8), "B": (8, 4)}
    save_file({f"{layer}.lora_{end}.weight": torch.ones(s) for end, s in shapes.items()}, path)
    problem = found(path, ROLE["prompt LoRA"]).problem
    assert problem.startswith("adapter_model.safetensors: expected adapter_config.json beside it")
    path.with_name("adapter_config.json").write_text('{"r": 4, "lora_alpha": 8}', "utf-8")
    assert found(path, ROLE["prompt LoRA"]).problem == ""


def test_the_weights_of_ram_that_rate_tags_are_counted(tmp_path):
    from tools.convert import convert

    role, path = ROLE["RAM"], DATA / "dape" / "ram_tiny.pth"
    one = found(path, role)
    used = read_tagger(path)
    assert (one.problem, one.count) == ("", len(used))
    assert sum(one.facts[0]["tensors"].values()) > len(used)
    counted = f"{len(used)} weights that rate tags"
    assert describe(one).endswith(f"{counted}, but the published file has 366")
    with torch.device("meta"):
        published = RAMTagger().state_dict()
    assert [re.search(role.counted, name)[1] for name in published] == [*published]
    assert len(published) == role.count
    convert(path, tmp_path / "ram.safetensors", None, None)
    one = found(tmp_path / "ram.safetensors", role)
    assert describe(one).endswith(f"{counted}, by tools/convert.py")
    assert to_entry(one)["as_published"] is False


def test_the_files_of_the_tagger_are_not_taken_for_each_other():
    ram, dape = DATA / "dape" / "ram_tiny.pth", DATA / "dape" / "dape_tiny.pth"
    for path, role, words in (
        (dape, "RAM", "expected the tagger RAM, but found DAPE, a LoRA for it"),
        (ram, "DAPE", "expected DAPE, a LoRA for the tagger RAM, but found RAM itself"),
    ):
        assert words in found(path, ROLE[role]).problem
    assert found(dape, ROLE["DAPE"]).problem == ""
    rams = ["ram_swin_large_14m.pth", "ram.safetensors"]
    names = [*rams, "ram_plus_swin_large_14m.pth", "program_ram.pth"]
    assert [name for name in names if re.search(ROLE["RAM"].pattern, name)] == rams


def test_the_noise_predictor_may_be_in_a_training_checkpoint(tmp_path):
    path = tmp_path / "noise_predictor_sd_turbo_v5.pth"
    weights = load_file(DATA / "invsr" / "noise_predictor_reduced.safetensors")
    torch.save({"state_dict": weights}, path)
    predictor = found(path, ROLE["InvSR"])
    assert (predictor.problem, predictor.is_as_published) == ("", True)
    del weights["encoder.conv_in.weight"]
    torch.save(weights, path)
    problem = found(path, ROLE["InvSR"]).problem
    assert "expected encoder.conv_in.weight to be (32, 3, 3, 3), but found none" in problem


def test_a_tag_is_wrong_only_beyond_rounding():
    names, thresholds = read_tag_list()
    probabilities = thresholds.clamp(max=0.9) - 0.1
    probabilities[:2] = thresholds[:2] + torch.tensor([0.1, 0.009])
    logits = probabilities.logit()
    assert tags.count_wrong(names[:2], logits) == 0
    assert tags.count_wrong(names[:1], logits) == 0  # the second may be lost by rounding
    assert tags.count_wrong(names[1:3], logits) == 2  # the first is missing, the third is not found


@pytest.mark.parametrize("path", ["/home/jo/my models/a b.pt", "C:\\Users\\Jo\\a.pt", "/mnt/x/y"])
def test_no_path_is_left(path):
    text = verify.scrub(f"expected a file, but found none at {path}; check it", {})
    assert not re.search("home|jo|Users|mnt", text, re.IGNORECASE)


def test_an_old_comfyui_is_named(tmp_path):
    (tmp_path / "comfyui_version.py").write_text('__version__ = "0.20.1"\n')
    oldest = comfyui.read_oldest_version()
    message = f"this is ComfyUI 0.20.1, and the pack needs {oldest} or newer; update"
    with pytest.raises(ValueError, match=message):
        comfyui.find_comfyui(tmp_path)
    with pytest.raises(ValueError, match=r"found no comfyui_version.py; .*--comfyui FOLDER"):
        comfyui.find_comfyui(tmp_path / "empty")


def test_a_newer_comfyui_and_a_full_card_are_noted():
    assert comfyui.NEWEST_TESTED == DEFAULT_VERSION
    machine = {"comfyui": "0.46.0", "device": "a card", "device_gib": 24.0, "device_free_gib": 9.5}
    newer, full = comfyui.list_notes(machine)
    assert newer.startswith(f"ComfyUI 0.46.0 is newer than {DEFAULT_VERSION}")
    reason = "Other programs hold 14.5 GiB of the card. If ComfyUI is running, close it"
    assert full.startswith(reason)
    assert comfyui.list_notes(machine | {"comfyui": "0.30.0", "device_free_gib": 23.0}) == []


def test_a_full_disk_leaves_nothing_and_is_told(tmp_path, small_files):
    with small_files(10), pytest.raises(ValueError, match=UNWRITTEN):
        verify.write_results(tmp_path, "{}" * 10, None)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=UNWRITTEN):
        verify.write_results(tmp_path / "file" / "out", "{}", None)


def test_an_interruption_writes_nothing(tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(comfyui, "find_comfyui", interrupt)
    monkeypatch.setattr("sys.argv", ["verify.py", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="stopped: nothing was written"):
        verify.main()
    assert list(tmp_path.iterdir()) == []


def make_report(device, verdict, published=True):
    file = {"bytes": 8, "sha256": "ab", "tensors": {"F32": 94}}
    files = [{"role": role.name, "files": [file], "as_published": published} for role in ROLES]
    parts = [{"part": "zoom", "verdict": "ran", "seconds": 3.5, "card_gib": 7.2}]
    parts += [{"part": "step", "verdict": verdict}, {"part": "tags", "verdict": "differs"}]
    facts = {"device": device, "device_gib": 24.0, "system": "Linux", "pack": "1", "comfyui": "2"}
    return {"format": verify.FORMAT, **facts, "files": files, "parts": parts}


def test_the_page_and_the_readme_count_the_cards(tmp_path, capsys):
    reports = tmp_path / verified.REPORTS
    reports.mkdir(parents=True)
    shutil.copyfile(ROOT / "README.md", tmp_path / "README.md")

    def count(name, *report):
        (reports / f"{name}.json").write_text(json.dumps(make_report(*report)), "utf-8")
        verified.main(tmp_path)
        return verified.README_LINE.search((tmp_path / "README.md").read_text("utf-8"))[0]

    assert count("a", "card A", "differs") == "by nobody yet"
    assert count("b", "card A", "equal", False) == "by nobody yet"
    assert count("c", "card | <B>", "equal") == "on 1 graphics card"
    assert count("d", "card | <B>", "equal") == "on 1 graphics card"
    assert count("e", "card A", "equal") == "on 2 graphics cards"
    page = (tmp_path / verified.PAGE).read_text("utf-8").splitlines()
    assert "| card &lt;B>, 24.0 GiB | Linux | 1 | 2 | equal | — | differs | 3.5 | 7.2 |" in page
    others = "equal, with other models | — | differs, with other models"
    assert f"| card A, 24.0 GiB | Linux | 1 | 2 | {others} | 3.5 | 7.2 |" in page
    assert "| SR LoRA | 8 | ab | 4 |" in page
    (reports / "f.json").write_text("{}", "utf-8")
    with pytest.raises(SystemExit, match=r"f\.json: expected a verify\.json"):
        verified.main(tmp_path)


def test_the_page_here_is_of_the_reports_here():
    reports = verified.read_reports(ROOT)
    assert (ROOT / verified.PAGE).read_text("utf-8") == verified.render_page(reports)
    shown = verified.README_LINE.findall((ROOT / "README.md").read_text("utf-8"))
    assert shown == [verified.describe_count(reports)]
    assert verified.FORMAT == verify.FORMAT
