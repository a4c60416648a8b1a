"""CoZ Sample Picture with a picture of the user's, which is read as Load Image reads it."""

import io
import wave

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.camera_files import oriented

from .prompts import kept_prompt


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


FILES = {
    "astronaut.png": lambda path: Image.fromarray(noise(20, 30, 3)).save(path),
    "turned.jpg": lambda path: oriented(path, 6, (30, 20)),
    "cmyk.jpg": lambda path: Image.fromarray(noise(20, 30, 4), "CMYK").save(path),
    "deep.png": lambda path: Image.fromarray(noise(20, 30).astype("uint16") * 256).save(path),
    "wide.png": lambda path: Image.fromarray(noise(10, 20000, 3)).save(path),
}


@pytest.mark.parametrize("name", FILES)
def test_an_own_picture_is_what_load_image_gives(input_folder, node, name):
    FILES[name](input_folder / name)
    (image,) = node("CoZSamplePicture").execute("astronaut.png", name).args
    assert torch.equal(image, node("LoadImage")().load_image(name)[0])
    if name == "astronaut.png":  # it does not take the place of the sample of that name
        (sample,) = node("CoZSamplePicture").execute("astronaut.png").args
        assert sample.shape == (1, 512, 512, 3)


def damaged():
    file = io.BytesIO()
    Image.fromarray(noise(200, 300, 3)).save(file, "png")
    return file.getvalue().replace(b"IDAT", b"\0DAT", 1)


def sound():
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(8000)
        writer.writeframes(bytes(16000))
    return file.getvalue()


NO_PICTURES = {
    "text": b"no picture",
    "empty": b"",
    "damaged": damaged(),
    "drawing": b"<svg xmlns='http://www.w3.org/2000/svg' width='10' height='10'/>",
    "sound": sound(),
}


@pytest.mark.parametrize("kind", NO_PICTURES)
def test_what_is_no_picture_is_refused_by_name(input_folder, node, kind):
    (input_folder / "notes.png").write_bytes(NO_PICTURES[kind])
    with pytest.raises(ValueError, match=r"^own_picture: notes\.png cannot be read as an image"):
        node("CoZSamplePicture").execute("astronaut.png", "notes.png")


def test_a_missing_file_is_refused_and_a_new_one_is_not(input_folder, node):
    check = node("CoZSamplePicture").validate_inputs
    assert check(own_picture="new.png").startswith("own_picture: there is no file new.png")
    (input_folder / "new.png").touch()
    assert check(own_picture="new.png") is True
    assert check(own_picture="none") is True


def test_the_list_has_the_pictures_of_the_input_folder(input_folder, node):
    for name in ("b.png", "a.jpg", "notes.txt"):
        (input_folder / name).touch()
    (own,) = (i for i in node("CoZSamplePicture").define_schema().inputs if i.id == "own_picture")
    assert own.options == ["none", "a.jpg", "b.png"]


def test_a_changed_file_runs_again(host, keep, input_folder):
    def run():
        prompt = kept_prompt(steps=1, size=32)
        prompt["source"]["inputs"]["own_picture"] = "own.png"
        return "source" in host.run(prompt)

    Image.fromarray(noise(40, 40, 3)).save(input_folder / "own.png")
    assert [run(), run()] == [True, False]
    Image.fromarray(255 - noise(40, 40, 3)).save(input_folder / "own.png")
    assert run()
