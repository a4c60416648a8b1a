"""Evaluate the built-in models and their teachers on scikit-image's photographs.

The first evaluation has a ground truth: every photograph is downscaled 4x, then upscaled 4x. The second
follows the paper's protocol: four 4x steps from 512 pixels. The program prints the scores of RESULTS.md.
"""

import contextlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import skimage.data
from safetensors.torch import save_file

from tools.host import ROOT, host_path
from tools.host.workflow import FIRST_TEMPLATE, find_node, read_prompt
from tools.train_lite.teachers import load_real_esrgan, load_span

PICTURES = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
MODELS = {"lite": "coz_lite_x4.safetensors", "texture": "coz_lite_x4_texture.safetensors"}
TEACHERS = {"SPAN": load_span, "Real-ESRGAN": load_real_esrgan}
METRICS = "consistency,source_psnr,sharpness,color_drift,seam"
PROTOCOLS = {
    "4x down, then 4x up": ["--scale-down", "4", "--metrics", f"psnr,ssim,gmsd,fsim,{METRICS}"],
    "the paper's protocol": ["--metrics", METRICS],
}


def main() -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "pictures").mkdir()
        for picture in PICTURES:
            content = (Path(skimage.data.__file__).parent / picture).read_bytes()
            (folder / "pictures" / picture).write_bytes(content)
        arms, models = ["nearest", "bicubic"], dict(MODELS)
        for arm, load in TEACHERS.items():
            models[arm] = f"benchmark {arm}.safetensors"
            file = host_path() / "models" / "upscale_models" / models[arm]
            save_file(load().state_dict(), file)
            stack.callback(file.unlink)
        for arm, model in models.items():
            prompt = read_prompt(FIRST_TEMPLATE)
            prompt[find_node(prompt, "UpscaleModelLoader")]["inputs"]["model_name"] = model
            file = folder / f"{arm}.json"
            file.write_text(json.dumps(prompt), "utf-8")
            arms.append(f"{arm}={file}")
        for number, (title, options) in enumerate(PROTOCOLS.items()):
            out = folder / str(number)
            line = [sys.executable, "-m", "tools.evaluate", folder / "pictures", "--out", out]
            line += ["--arms", ",".join(arms), *options]
            if subprocess.run(line, cwd=ROOT, stdout=subprocess.DEVNULL).returncode:
                raise SystemExit(f"evaluate: {title}: failed")
            table = (out / "table.md").read_text("utf-8")
            print(f"evaluate: {title}\n\n{re.sub('^#', '###', table, flags=re.MULTILINE)}")


if __name__ == "__main__":
    main()
