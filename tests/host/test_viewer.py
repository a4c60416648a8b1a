"""CoZ Zoom Viewer: what it writes and tells the page, and the marks that come back."""

import hashlib
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
from PIL import Image

from coz.chain.zoom_chain import ZoomChain
from coz.resample import crop, resize
from tools.host.client import ServerClient, run_prompt

from .prompts import VERSIONS, chain_prompt, make_node

STEPS = 2
PROMPTS = ["a face", '<img src=x onerror="hack()">']


@pytest.fixture(scope="module")
def folders(server_folder):
    """The server's (temp, output) folders."""
    return server_folder / "temp", server_folder / "output"


@pytest.fixture(scope="module")
def run(server):
    return run_prompt(server, viewer_prompt())


@pytest.fixture(scope="module")
def shown(run):
    return run.outputs["viewer"]


def viewer_prompt(**inputs):
    prompt = chain_prompt(steps=STEPS, step_prompts="\n".join(PROMPTS), center_x=0.61, **inputs)
    del prompt["scales"]
    prompt["viewer"] = make_node("CoZZoomViewer", chain=["loop", 3])
    return prompt


def picture(server, saved):
    return ServerClient(server).download(saved)


def files_of(ui, key="coz_layers"):
    """The files that the viewer's own page code gets, which no app takes for results."""
    return json.loads(*ui[key])


def run_of(ui):
    """The name by which a mark knows the run."""
    return files_of(ui)[0]["filename"]


def pixels(content):
    with Image.open(BytesIO(content)) as file:
        return np.array(file)


def to_frame(array):
    return torch.from_numpy(array).permute(2, 0, 1)[None].float() / 255


def to_bytes(frame):
    """As the host's savers do."""
    return (frame.clamp(0, 1)[0].permute(1, 2, 0) * 255).byte().numpy()


def post(server, body, headers=None, path="/chain_of_zoom/preference"):
    """(status, answer) of a mark."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = requests.post(f"{server}{path}", data, headers=headers)
    return answer.status_code, answer.json()


def read_marks(output):
    path = output / "chain-of-zoom" / "preferences.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(params=VERSIONS, ids=str)
def multi_user(request, servers):
    """(URL, folder) of a server for several users."""
    return servers("--multi-user", version=request.param)


def test_it_shows_every_layer_and_the_record(server, shown):
    record = json.loads(shown["coz_chain"][0])
    assert record["prompts"] == PROMPTS
    layers = [pixels(picture(server, saved)) for saved in files_of(shown)]
    assert [[a.shape[1], a.shape[0]] for a in layers] == record["frames"]
    assert record["frames"] == [[512, 512], *[[64, 64]] * (STEPS + 1)]
    # x_0 is the source's own pixels, so both are written without a loss.
    x, y, width, height = (int(v) for v in record["windows"][0])
    assert np.array_equal(layers[1], layers[0][y : y + height, x : x + width])


def test_its_one_result_is_the_deepest_frame(shown):
    """An app of the frontend takes every file of the output for a result."""
    files = [item for items in shown.values() for item in items if isinstance(item, dict)]
    words = "2 steps, 16x: the deepest frame holds 4 x 4 real pixels, the rest is invented"
    assert files == [{**files_of(shown)[-1], "display_name": words}]


def test_bicubic_is_the_sources_own(server, shown):
    source, *frames = (to_frame(pixels(picture(server, s))) for s in files_of(shown))
    chain = ZoomChain.from_json(shown["coz_chain"][0], (source, *frames))
    assert len(files_of(shown, "coz_bicubic")) == STEPS
    for layer, saved in enumerate(files_of(shown, "coz_bicubic"), 2):
        expected = to_bytes(resize(source, 64, 64, box=chain.find_window_in(layer, 0)))
        actual = pixels(picture(server, saved))
        assert np.abs(actual.astype(int) - expected).max() <= 1
        assert (actual == expected).mean() > 0.99


def test_it_writes_nothing_when_nothing_changed(server, run, shown, folders):
    before = sorted(folders[0].iterdir())
    again = run_prompt(server, viewer_prompt())
    assert "viewer" not in again.executed
    assert again.outputs["viewer"] == shown
    assert sorted(folders[0].iterdir()) == before


def test_each_chain_is_shown_with_its_own_layers(node, make_chain):
    chains = [make_chain(steps=1), make_chain(steps=2)]
    sent = [node("CoZZoomViewer").execute(chain).ui for chain in chains]
    assert [len(files_of(ui)) for ui in sent] == [3, 4]
    assert [len(files_of(ui, "coz_bicubic")) for ui in sent] == [1, 2]
    assert [json.loads(*ui["coz_chain"])["steps"] for ui in sent] == [1, 2]


def test_a_mark_keeps_prompt_and_pictures(server, shown, folders):
    run = run_of(shown)
    for good, added in [(True, True), (True, False), (False, True), (True, True)]:
        assert post(server, {"run": run, "step": 2, "good": good}) == (200, {"added": added})
    entries = read_marks(folders[1])
    assert [entry["good"] for entry in entries] == [True, False, True]
    entry = entries[0]
    assert entry["time"].endswith("+00:00")
    record = json.loads(shown["coz_chain"][0])
    expected = {"prompt": PROMPTS[1], "step": 2, "factor": [16.0, 16.0], "scale": 4.0}
    expected |= {"models": ["coz_lite_x4.safetensors"], "pack": record["pack"]}
    assert {key: entry[key] for key in expected} == expected
    folder = folders[1] / "chain-of-zoom"
    previous = picture(server, files_of(shown)[2])
    assert (folder / entry["previous"]).read_bytes() == previous
    frame = to_frame(pixels(previous))
    x, y, width, height = record["windows"][2]
    view = resize(crop(frame, (x, y, width, height)), 64, 64).clamp(0, 1)
    expected = (view[0].permute(1, 2, 0) * 255).round().byte().numpy()
    assert np.array_equal(pixels((folder / entry["zoomed"]).read_bytes()), expected)
    assert len(list((folder / "preferences").iterdir())) == 2


def test_a_line_cut_short_swallows_no_mark(server, shown, folders):
    path = folders[1] / "chain-of-zoom" / "preferences.jsonl"
    run = run_of(shown)
    post(server, {"run": run, "step": 1, "good": True})
    before = path.read_bytes()
    path.write_bytes(before + b'{"prompt": "cut sh')
    assert post(server, {"run": run, "step": 1, "good": False}) == (200, {"added": True})
    lines = path.read_text("utf-8").splitlines()
    assert lines[-2] == '{"prompt": "cut sh'
    assert json.loads(lines[-1])["good"] is False
    path.write_bytes(before)


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"step": 0}, 400, "step must be 1 to 2, got 0"),
        ({"step": 3}, 400, "step must be 1 to 2, got 3"),
        ({"step": True}, 400, "expected JSON"),
        ({"step": "1"}, 400, "expected JSON"),
        ({"good": 1}, 400, "expected JSON"),
        ({"good": None}, 400, "expected JSON"),
        ({"run": 7}, 400, "expected JSON"),
        ({"run": "../output/zoom_00001_.png"}, 400, "run must be the file name"),
        ({"run": "..\\zoom.png"}, 400, "run must be the file name"),
        ({"run": "/etc/passwd"}, 400, "run must be the file name"),
        ({"run": "a.png\n"}, 400, "run must be the file name"),
        ({"run": ""}, 400, "run must be the file name"),
        ({"run": "Con.png"}, 400, "run must be the file name"),
        ({"run": "ComfyUI_temp_qqqqq_00001_.png"}, 404, "Run again"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_bad_mark_is_refused(server, shown, folders, change, status, message):
    before = read_marks(folders[1])
    code, answer = post(server, {"run": run_of(shown), "step": 1, "good": True} | change)
    assert (code, list(answer)) == (status, ["error"])
    assert message in answer["error"]
    assert read_marks(folders[1]) == before


def test_each_user_has_marks_of_their_own(multi_user):
    server, home = multi_user
    ann, ben = (post(server, {"username": name}, path="/users")[1] for name in ("ann", "ben"))
    shown = run_prompt(server, viewer_prompt()).outputs["viewer"]

    def give(user, good):
        headers = {} if user is None else {"Comfy-User": user}
        return post(server, {"run": run_of(shown), "step": 2, "good": good}, headers)

    assert give(ann, True) == (200, {"added": True})
    assert give(ben, True) == (200, {"added": True})  # not answered by ann's
    assert give(ben, True) == (200, {"added": False})
    assert give(ben, False) == (200, {"added": True})
    assert give(ann, True) == (200, {"added": False})
    for stranger in (None, "nobody", "default", "__system", "../ann", ""):
        code, answer = give(stranger, True)
        assert code == 401
        assert answer["error"].startswith(f"ComfyUI knows no user {stranger or ''!r}: ")
    previous = picture(server, files_of(shown)[2])
    for user, verdicts in ((ann, [True]), (ben, [True, False])):
        entries = read_marks(home / "user" / user)
        assert [entry["good"] for entry in entries] == verdicts
        assert {entry["user"] for entry in entries} == {user}
        folder = home / "user" / user / "chain-of-zoom"
        assert (folder / entries[0]["previous"]).read_bytes() == previous
    assert not (home / "output" / "chain-of-zoom").exists()


def test_a_stranger_gets_no_clip(multi_user):
    url, _ = multi_user
    answer = requests.post(f"{url}/chain_of_zoom/clip?run=x.png", headers={"Comfy-User": "nobody"})
    assert answer.status_code == 401
    assert answer.text.startswith("ComfyUI knows no user 'nobody': ")


def test_the_picker_shows_the_picture_of_each_user(multi_user):
    url, folder = multi_user
    Image.new("RGB", (7, 5)).save(folder / "input" / "a.png")
    for base in (url, f"{url}/api"):
        query = {"node": "LoadImage", "image": "a.png"}
        user = {"Comfy-User": "ann_1"}
        answer = requests.get(f"{base}/chain_of_zoom/source", query, headers=user)
        assert answer.json()["width"] == 7


def test_a_single_user_host_names_no_user(server, shown, folders):
    body = {"run": run_of(shown), "step": 1, "good": True}
    assert post(server, body, {"Comfy-User": "ann"})[0] == 200  # ignored, as by the host
    assert not any("user" in entry for entry in read_marks(folders[1]))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff"])
def test_what_is_no_json_is_refused(server, body):
    code, answer = post(server, body)
    assert code == 400
    assert "expected JSON" in answer["error"]


def test_a_step_without_a_prompt_cannot_be_judged(server):
    prompt = viewer_prompt()
    prompt["loop"]["inputs"]["step_prompts"] = "-\na face"
    shown = run_prompt(server, prompt).outputs["viewer"]
    answer = post(server, {"run": run_of(shown), "step": 1, "good": True})
    assert answer == (400, {"error": "step 1 has no prompt to judge"})


def test_a_folder_that_cannot_be_written_is_an_error_and_loses_nothing(server, shown, folders):
    folder, aside = folders[1] / "chain-of-zoom", folders[1] / "aside"
    folder.rename(aside)
    folder.write_bytes(b"in the way")
    code, answer = post(server, {"run": run_of(shown), "step": 2, "good": False})
    folder.unlink()
    aside.rename(folder)
    assert code == 507
    assert answer["error"].startswith("The mark could not be written: ")


def test_half_a_character_in_a_prompt_can_be_marked(node, nodes_of, make_chain, tmp_path):
    chain = make_chain(steps=1)
    chain = ZoomChain.from_json(chain.to_json().replace("text 0", "\\ud83d 好"), chain.frames)
    mark = nodes_of("view.marks").add_mark
    run = run_of(node("CoZZoomViewer").execute(chain).ui)
    assert [mark(tmp_path, run, 1, good) for good in (True, True, False)] == [True, False, True]
    lines = (tmp_path / "preferences.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == ["\ud83d 好"] * 2


def test_a_full_disk_leaves_no_half_picture(node, nodes_of, make_chain, tmp_path):
    import folder_paths

    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    viewer = node("CoZZoomViewer")
    mark = nodes_of("view.marks").add_mark
    layers = [saved["filename"] for saved in files_of(viewer.execute(make_chain(steps=1)).ui)]
    previous = Path(folder_paths.get_temp_directory(), layers[1]).read_bytes()
    pictures = tmp_path / "preferences"
    pictures.mkdir()
    name = hashlib.blake2b(previous, digest_size=12).hexdigest()
    (pictures / f"{name}.part").symlink_to(full)
    with pytest.raises(OSError, match="No space left"):
        mark(tmp_path, layers[0], 1, True)
    assert not (pictures / f"{name}.png").exists()
    (pictures / f"{name}.part").unlink()
    assert mark(tmp_path, layers[0], 1, True)
    assert (pictures / f"{name}.png").read_bytes() == previous


# The last one: it throws the run's pictures away.
def test_gone_pictures_say_run_again(server, shown, folders):
    run = run_of(shown)
    (folders[0] / files_of(shown)[1]["filename"]).unlink()
    assert post(server, {"run": run, "step": 1, "good": True})[0] == 404
    (folders[0] / run).with_suffix(".json").unlink()
    code, answer = post(server, {"run": run, "step": 2, "good": True})
    assert code == 404
    assert "Run again" in answer["error"]
