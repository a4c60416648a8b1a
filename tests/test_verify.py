"""tools/verify.py without ComfyUI, and the page about its reports."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from tools import verify
from tools.host import DEFAULT_VERSION
from tools.release import verified
from tools.verification import comfyui
from tools.verification.files import ROLES, FoundFile, describe, inspect, record

ROOT = Path(__file__).parent.parent
FLOAT8 = torch.float8_e4m3fn
DATA = Path(__file__).parent / "data"
ROLE = {role.name: role for role in ROLES}
LORA = ROLE["SR LoRA"]


def found(path, role=LORA):
    one = FoundFile(role, [path], path.name)
    inspect(one)
    return one


def test_what_a_file_holds_is_told():
    one = found(DATA / "sr_lora_2block.pkl")
    assert (one.problem, one.count) == ("", 6)
    assert one.facts[0]["tensors"] == {"F32": 6}
    assert describe(one).endswith("6 tensors, but the published file has 94")
    assert record(one)["as_published"] is False


def test_a_truncated_and_a_missing_file_are_named_by_their_role_alone(tmp_path):
    cut = tmp_path / "my own name.pkl"
    cut.write_bytes((DATA / "sr_lora_2block.pkl").read_bytes()[:2000])
    for path, sentence in (
        (cut, "download it again"),
        (tmp_path / "my absence.pkl", "but found none at"),
    ):
        one = found(path)
        assert sentence in one.problem
        text = verify.scrub(record(one)["problem"], {"SR LoRA": one})
        assert sentence in text
        assert path.stem not in text
        assert tmp_path.as_posix() not in text


@pytest.mark.parametrize("path", ["/home/jo/my models/a b.pt", "C:\\Users\\Jo\\a.pt", "/mnt/x/y"])
def test_no_path_is_left(path):
    text = verify.scrub(f"expected a file, but found none at {path}; check it", {})
    assert not re.search("home|jo|Users|mnt", text, re.IGNORECASE)


def test_an_old_comfyui_is_named(tmp_path):
    (tmp_path / "comfyui_version.py").write_text('__version__ = "0.20.1"\n')
    oldest = comfyui.read_oldest_version()
    with pytest.raises(
        ValueError, match=f"this is ComfyUI 0.20.1, and the pack needs {oldest} or newer; update"
    ):
        comfyui.find_comfyui(tmp_path)
    with pytest.raises(ValueError, match=r"found no comfyui_version.py; .*--comfyui FOLDER"):
        comfyui.find_comfyui(tmp_path / "empty")


def test_a_newer_comfyui_and_a_full_card_are_noted():
    assert comfyui.NEWEST_TESTED == DEFAULT_VERSION
    machine = {"comfyui": "0.46.0", "device": "a card", "device_gib": 24.0, "device_free_gib": 9.5}
    newer, full = comfyui.list_notes(machine)
    assert newer.startswith(f"ComfyUI 0.46.0 is newer than {DEFAULT_VERSION}")
    assert full.startswith(
        "Other programs hold 14.5 GiB of the card. If ComfyUI is running, close it"
    )
    assert comfyui.list_notes(machine | {"comfyui": "0.30.0", "device_free_gib": 23.0}) == []


def test_a_full_disk_leaves_nothing_and_is_told(tmp_path, small_files):
    with (
        small_files(10),
        pytest.raises(
            ValueError, match=r"verify.json cannot be written: .*--out FOLDER.* is above"
        ),
    ):
        verify.write_results(tmp_path, "{}" * 10, None)
    assert list(tmp_path.iterdir()) == []


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
    parts += [{"part": "step", "verdict": verdict}]
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
    assert count("c", "card | <B>", "equal") == "on 1 card"
    assert count("d", "card | <B>", "equal") == "on 1 card"
    assert count("e", "card A", "equal") == "on 2 cards"
    page = (tmp_path / verified.PAGE).read_text("utf-8").splitlines()
    assert "| card &lt;B>, 24.0 GiB | Linux | 1 | 2 | equal | — | 3.5 | 7.2 |" in page
    assert "| card A, 24.0 GiB | Linux | 1 | 2 | equal, with other models | — | 3.5 | 7.2 |" in page
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
