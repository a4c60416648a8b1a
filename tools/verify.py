"""Check the published weights of Chain-of-Zoom on this machine, in about five minutes.

Run it by its path, with the same Python as ComfyUI. In the Windows portable's folder:

    python_embeded\\python.exe ComfyUI\\custom_nodes\\chain-of-zoom\\tools\\verify.py

It looks for the published models in ComfyUI's model folders and works even if only some of them are there. It
zooms into a photograph through the nodes of the pack. It compares one step with diffusers and the prompt
extractor's tokens with transformers, where they are installed, and the ratings and tags of the tagger RAM
with those of the same network outside ComfyUI.
It writes verify.json and verify.png, to attach to an issue. Neither holds a path, a file name or anything
about you; verify.json is shown before it is written. Nothing is downloaded, and nothing in the model folders
is changed.

Options that are not listed here are options of ComfyUI's main.py, such as --base-directory or --lowvram.
"""

import argparse
import io
import json
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

PACK = Path(__file__).absolute().parent.parent
if __name__ == "__main__":
    # Insert it first, so that no other package of the name tools is found. Later, ComfyUI's folder is inserted
    # in front of it.
    sys.path.insert(0, str(PACK))

try:
    import torch
    from PIL import Image
    from torchvision.transforms.functional import to_tensor

    from coz import ZoomChain, crop, resize
    from coz.render.pillow import to_pillow
    from coz.render.strip import draw_strip
    from tools.verification import comfyui, step, tags, tokens
    from tools.verification.files import ROLES, FoundModel, describe, find_model, inspect, to_entry
except ModuleNotFoundError as error:
    sys.exit(f"error: this Python has no {error.name}: use the one that ComfyUI runs on")

FORMAT = "chain-of-zoom-verify/1"
SIZE = 512
REPORT_INSTRUCTION = (
    "attach this to an issue of the form Verification in the repository of the pack"
)
PICTURE = PACK / "pictures" / "astronaut.png"
MAX_SHOWN_TAGS = 20
EQUAL, DIFFERS, RAN, FAILED, NOT_COMPARED = "equal", "differs", "ran", "failed", "not compared"
BAD_VERDICTS = (DIFFERS, FAILED)


class Verification:
    """The parts of one run, each with its verdict."""

    def __init__(self, pack: ModuleType, models: dict[str, FoundModel], size: int):
        self.pack, self.size = pack, size
        self.models = {role: found for role, found in models.items() if not found.problem}
        self.parts: list[dict[str, Any]] = []
        self.chain = None

    def run(self, name: str, check) -> None:
        """Run a part, keep its verdict and print it."""
        part: dict[str, Any] = {"part": name}
        self.parts.append(part)
        print(f"{name}: running", flush=True)
        try:
            with torch.inference_mode(), comfyui.measure(part):
                part["verdict"], part["text"] = check()
        except Exception as error:  # the other parts still run, whatever this part raises
            part["verdict"], part["text"] = FAILED, comfyui.explain(error)
        print(f"{name}: {part['verdict']}. {part['text']} ({part['seconds']} s)", flush=True)

    def run_all(self) -> None:
        self.vlm = self.networks = self.tags = None
        if "Qwen2.5-VL-3B" in self.models:
            self.run("prompt extractor", self.load_vlm)
        if "SD3" in self.models:
            self.run("sr model", self.load_networks)
        if self.networks or "upscale model" in self.models:
            self.run("zoom", self.zoom)
        if self.vlm and self.chain:
            self.run("tokens", self.compare_tokens)
        self.vlm = None
        if self.networks and self.chain:
            self.networks = None
            self.run("step", self.compare_step)
        if "RAM" in self.models:
            self.run("tagger", self.find_tags)
        if self.tags is not None:
            self.run("tags", self.compare_tags)

    def load_vlm(self) -> tuple[str, str]:
        self.vlm = tokens.load_vlm(self.models)
        return RAN, "It is loaded."

    def load_networks(self) -> tuple[str, str]:
        self.networks = step.load_networks(self.models)
        absent = [role for role in ("SR LoRA", "VAE encoder") if role not in self.models]
        return RAN, f"It is loaded{' without ' if absent else ''}{' and '.join(absent)}."

    def zoom(self) -> tuple[str, str]:
        upscaler = None
        if not self.networks:
            (upscaler,) = (
                step.get_node("UpscaleModelLoader")
                .execute(self.models["upscale model"].register_for_loader())
                .args
            )
        self.chain = step.zoom_in(read_picture(), self.size, self.networks, self.vlm, upscaler)
        backbone = "SD3" if self.networks else "the upscale model"
        return RAN, f"{self.chain.steps} steps by {backbone}, prompts: {list(self.chain.prompts)}."

    def compare_tokens(self) -> tuple[str, str]:
        images = [tokens.resize_for_model(image, self.size) for image in self.get_frame_and_view()]
        found = tokens.ask(self.vlm, images)
        converted = self.explain_converted_files("prompt LoRA")
        if reason := comfyui.explain_missing_package("transformers") or converted:
            return NOT_COMPARED, reason
        same, equal = tokens.compare_tokens(self.pack, self.models, self.vlm, images, found)
        text = f"transformers chooses the same token in {same} of {len(found)} cases"
        if equal == len(found):
            rest = "." if same == equal else ", and the others are as likely there within rounding."
            return EQUAL, text + rest
        return DIFFERS, f"{text}, and {len(found) - equal} are unlikely there."

    def compare_step(self) -> tuple[str, str]:
        converted = self.explain_converted_files("SR LoRA", "VAE encoder")
        if reason := comfyui.explain_missing_package("diffusers") or converted:
            return NOT_COMPARED, reason
        difference = step.compare_step(self.models, self.get_frame_and_view()[1])
        text = (
            f"In float32 the result differs from that of diffusers by {difference:.1e} (relative norm); "
            f"the limit is {step.MAX_DIFFERENCE:.0e}."
        )
        return EQUAL if difference < step.MAX_DIFFERENCE else DIFFERS, text

    def find_tags(self) -> tuple[str, str]:
        self.tags = tags.find_tags(self.models, read_picture())
        plain = "" if "DAPE" in self.models else " without DAPE"
        shown = ", ".join(self.tags[:MAX_SHOWN_TAGS])
        return RAN, f"It finds {len(self.tags)} tags{plain}: {shown}."

    def compare_tags(self) -> tuple[str, str]:
        if converted := self.explain_converted_files("DAPE"):
            return NOT_COMPARED, converted
        difference, logits = tags.compare_logits(self.pack, self.models, read_picture())
        wrong = tags.count_wrong(self.tags, logits)
        text = (
            f"In float32 the logits differ by at most {difference:.1e} from those of the same network "
            f"outside ComfyUI; the limit is {tags.MAX_DIFFERENCE:.0e}. {wrong} tags differ by more than "
            "rounding."
        )
        return EQUAL if difference < tags.MAX_DIFFERENCE and not wrong else DIFFERS, text

    def explain_converted_files(self, *roles: str) -> str:
        """Return a sentence that names the files which are not as published, or "" if all are."""
        converted = [
            role for role in roles if role in self.models and self.models[role].is_converted
        ]
        if not converted:
            return ""
        return f"{' and '.join(converted)}: only the file as it was published can be compared."

    def get_frame_and_view(self) -> list[torch.Tensor]:
        """Return x_0 and the enlarged view of the first step."""
        frame = self.chain.frames[1]
        view = resize(crop(frame, self.chain.windows[1]), *frame.shape[-2:]).clamp(0, 1)
        return [frame, view]


def read_picture() -> torch.Tensor:
    """Return the bundled photograph (1, 3, H, W)."""
    return to_tensor(Image.open(PICTURE).convert("RGB"))[None]


def find_models(given: dict[str, Path | None]) -> tuple[dict[str, FoundModel], list[str]]:
    """Find, inspect and print the models. Return them by role, and the roles without one."""
    models, absent = {}, []
    for role in ROLES:
        print(f"{role.name}: looking", flush=True)
        found = find_model(role, given[role.option.replace("-", "_")])
        if found is None:
            absent.append(role.name)
            print(f"{role.name}: none in models/{' or models/'.join(role.folders)}")
            continue
        inspect(found)
        models[role.name] = found
        print(describe(found), flush=True)
    return models, absent


def scrub(text: str, models: dict[str, FoundModel]) -> str:
    """Remove the names and paths of files from a text for verify.json."""
    for name, found in models.items():
        for path in found.paths:
            for place in (str(path), found.name, path.name, str(path.parent)):
                text = text.replace(place, name)
    for place in (str(PACK), str(Path.home()), str(Path.cwd())):
        text = text.replace(place, "...")
    # Remove whatever still looks like a path of any system.
    return re.sub(r"(?:[A-Za-z]:)?[\\/](?:[^\s:'\"]+[\\/])+[^\s:'\"]*", "...", text)


def write_atomically(path: Path, content: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for role in ROLES:
        parser.add_argument(f"--{role.option}", type=Path, metavar="FILE", help=f"{role.source}")
    parser.add_argument("--comfyui", type=Path, metavar="FOLDER", help="the one with main.py in it")
    parser.add_argument("--out", type=Path, metavar="FOLDER", default=Path(), help="where to write")
    parser.add_argument("--size", type=int, default=SIZE, help="of the frames, a multiple of 16")
    return parser.parse_known_args()


def verify(options: argparse.Namespace, arguments: list[str]) -> bool:
    """Run every part for which there are models, print and write the result; return whether all succeeded."""
    folder = comfyui.find_comfyui(options.comfyui)
    pack = comfyui.start(folder, arguments)
    machine = comfyui.describe_machine(folder)
    notes = comfyui.list_notes(machine)
    print("\n".join(notes))
    models, absent = find_models(vars(options))
    verification = Verification(pack, models, options.size)
    verification.run_all()
    result = {
        "format": FORMAT,
        **machine,
        "notes": notes,
        "size": options.size,
        # Texts are scrubbed here, before JSON doubles the backslashes of paths.
        "files": [
            to_entry(found) | {"problem": scrub(found.problem, models)} for found in models.values()
        ],
        "absent": absent,
        "parts": [part | {"text": scrub(part["text"], models)} for part in verification.parts],
    }
    text = json.dumps(result, indent=1, ensure_ascii=False)
    print(f"\nverify.json:\n{text}\n", flush=True)
    write_results(options.out, text, verification.chain)
    problems = [f"{found.role.name}: {found.problem}" for found in models.values() if found.problem]
    bad = [part["part"] for part in verification.parts if part["verdict"] in BAD_VERDICTS]
    print("\n".join([*problems, *(f"{part}: see above" for part in bad)]))
    return not problems and not bad


def write_results(out: Path, text: str, chain: ZoomChain | None) -> None:
    files = {"verify.json": text.encode()}
    if chain:
        file = io.BytesIO()
        to_pillow(draw_strip(chain)).save(file, "png")
        files["verify.png"] = file.getvalue()
    for name, content in files.items():
        try:
            out.mkdir(parents=True, exist_ok=True)
            write_atomically(out / name, content)
        except OSError as error:
            raise ValueError(
                f"{name} cannot be written: {error.strerror}. Name another folder with --out FOLDER; what "
                "verify.json would hold is above"
            ) from error
    print(
        f"Written: {' and '.join(str(out / name) for name in files)}. To report: {REPORT_INSTRUCTION}"
    )


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        # Prompts may be Chinese, which some consoles cannot show.
        stream.reconfigure(errors="backslashreplace")
    options, arguments = parse_arguments()
    try:
        sys.exit(0 if verify(options, arguments) else 1)
    except ValueError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped: nothing was written")


if __name__ == "__main__":
    main()
