"""Count the arithmetic, memory and transfers of a zoom at the real sizes of the models, on simulated GPUs.

"Card" means a GPU here. The nodes run in the real ComfyUI, on tensors that have shapes but no values. The
memory is that of the tensors alone. Times are estimated from the counts. Limits: template 4, the paper's
method with SD3 and Qwen2.5-VL (AR-2), takes at most 11 GiB on a card of 12 GB, and 7.5 GiB on a card of 8 GB.

python -m benchmarks.card [--toy | --write]     --write: also write cost.svg
    --toy: a few blocks of SD3, Qwen and Real-ESRGAN, no T5, one card
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.support.host_with_card import HostWithCard
from tools.host import ROOT, host_path
from tools.host.in_process import load_pack
from tools.host.workflow import Prompt, find_node, read_prompt

from .card_counts import TFLOP_AND_GB
from .card_figure import OVERLAPS, count_views, draw_costs
from .card_files import Files, Sizes, write_files
from .card_parts import LOAD, PARTS, REST, SR, TOKENS, Part, Recorder, add_parts
from .card_tables import print_authors_step, print_step, print_t5_saving, print_table

GIB = 2**30
CARDS_GIB, TOY_CARDS_GIB = (8, 12, 16, 24), (8,)
MAX_PEAK_GIB_BY_CARD = {8: 7.5, 12: 11.0}
"""Memory of a card in GiB -> maximum peak of AR-2 in GiB."""
STEPS = 4
ANSWER_TOKENS, CHAIN_ANSWER_TOKENS = 32, 2
"""Tokens that the VLM writes: in the single step, and in each step of a chain, where 32 take too long."""

WORKFLOWS = {"SD3": "2 Chain-of-Zoom SD3", "AR-2": "4 Chain-of-Zoom as in the paper (AR-2)"}
STEP_WORKFLOW = "more/AR-2 step by step"
UPSCALE_WORKFLOW = "1 Start here - zoom into a picture (no downloads)"
WHOLE_PICTURE_WORKFLOW = "6 Whole picture 4x (no downloads)"


def load_host() -> str:
    """Load ComfyUI with the settings of an NVIDIA GPU; return the name of the pack's module."""
    sys.path.insert(0, str(host_path()))
    from comfy.cli_args import args

    args.use_pytorch_cross_attention = True
    name = load_pack(on_cpu=True).__name__
    logging.disable(logging.WARNING)
    return name


def add_folders(folder: Path) -> None:
    """Let ComfyUI find models in the folder, and write its files there."""
    import folder_paths

    for kind in ("checkpoints", "loras", "vae", "text_encoders", "upscale_models"):
        folder_paths.add_model_folder_path(kind, str(folder / kind), is_default=True)
    for name in ("temp", "output"):
        (folder / name).mkdir()
    folder_paths.set_temp_directory(str(folder / "temp"))
    folder_paths.set_output_directory(str(folder / "output"))


def read_workflow(name: str) -> Prompt:
    return read_prompt(ROOT / "workflows" / f"{name}.json")


def make_chain(name: str, steps: int, tokens: int, checkpoint: str) -> tuple[Prompt, str]:
    """Make the prompt of a template with this number of steps; also return the id of its last node."""
    prompt = read_workflow(name)
    prompt[find_node(prompt, "CheckpointLoaderSimple")]["inputs"]["ckpt_name"] = checkpoint
    loop = prompt[find_node(prompt, "CoZChainLoop")]["inputs"]
    loop["steps"] = steps
    if "prompting.vlm" in loop:
        loop["prompting.max_tokens"] = tokens
    else:  # different texts, because ComfyUI would encode equal ones only once
        loop["step_prompts"] = "\n".join(f"a view of step {i}" for i in range(steps))
    return prompt, find_node(prompt, "CoZZoomViewer")


def make_text_step(t5_tokens: int, checkpoint: str) -> tuple[Prompt, str]:
    """Make one step out of single nodes, with a typed text in a T5 context of this number of tokens."""
    prompt = read_workflow(STEP_WORKFLOW)
    prompt[find_node(prompt, "CheckpointLoaderSimple")]["inputs"]["ckpt_name"] = checkpoint
    step = next(key for key, node in prompt.items() if node["class_type"] == "CoZSRStep")
    encoder, _ = prompt[step]["inputs"]["positive"]
    prompt[encoder]["inputs"] |= {"prompt": "a rocket", "t5_tokens": t5_tokens}
    return prompt, step


def make_upscale(name: str, output_class: str, changed_class: str, **inputs) -> tuple[Prompt, str]:
    prompt = read_workflow(name)
    loader = prompt[find_node(prompt, "UpscaleModelLoader")]["inputs"]
    loader["model_name"] = "RealESRGAN_x4plus.safetensors"
    prompt[find_node(prompt, changed_class)]["inputs"] |= inputs
    return prompt, find_node(prompt, output_class)


def run(prompt: Prompt, output: str, card_gib: int) -> dict[str, Part]:
    """Run a prompt on a new card, up to the node with the id ``output``; return the work of each part."""
    from tests.host.executor import Executor

    with HostWithCard(size=card_gib * GIB, has_values=False).running() as card:
        recorder = Recorder(card)
        with recorder.record_host():
            Executor("CLASSIC").run(prompt, output)
    return recorder.parts


def run_authors_step(sizes: Sizes, vlm_bytes: int, folder: Path) -> dict[str, Part]:
    """Run one step of the authors' chain in diffusers, with the weights of their VLM on the card too."""
    from tests.support.random_sd3 import (
        autoencoder,
        clip_text,
        coz_lora,
        sd3_medium,
        sd3_transformer,
        t5_xxl,
        with_coz_encoder,
    )
    from tests.support.simulated_card import Card

    from .authors_chain import AuthorsChain, Networks, inject_lora

    meta = torch.device("meta")
    is_full_size = sizes == Sizes()
    with torch.no_grad(), Card(64 * GIB, has_values=False) as card:
        transformer = sd3_medium(meta) if is_full_size else sd3_transformer(sizes.sd3_blocks)
        transformer = transformer.to(card.device)
        inject_lora(transformer, coz_lora(sizes.sd3_blocks))
        vae = with_coz_encoder(autoencoder()).to(card.device)
        clips = [clip_text(large, meta).to(card.device) for large in (False, True)]
        t5 = t5_xxl(meta).to(card.device) if sizes.has_t5 else None
        vlm = torch.empty(vlm_bytes, dtype=torch.uint8, device=card.device)
        recorder = Recorder(card)

        class Recorded(AuthorsChain):
            def time_part(self, name: str):
                return recorder.record_part(name)

        picture = ROOT / "pictures" / "rocket.jpg"
        chain = Recorded(Networks(transformer, vae, clips, t5))
        chain.run_chain(picture, 512, folder / "authors", ["a rocket"])
        recorder.attribute_work()
        del vlm
    return recorder.parts


def run_chains(files: Files, cards: Sequence[int], steps: int) -> list[str]:
    """Run both templates on all cards and print a table; return the missed limits."""
    rows, missed = [], []
    runs = [(template, gib, files.t5_fp8) for template in WORKFLOWS for gib in cards]
    runs += [("SD3", cards[-1], files.t5_fp16), ("SD3", cards[0], files.no_t5)]
    for template, gib, checkpoint in runs:
        chain = make_chain(WORKFLOWS[template], steps, CHAIN_ANSWER_TOKENS, checkpoint)
        parts = run(*chain, gib)
        total = add_parts(parts.values())
        peak = total.peak / GIB
        if template == "AR-2" and peak > (limit := MAX_PEAK_GIB_BY_CARD.get(gib, peak)):
            missed.append(
                f"template 4 takes {peak:.2f} GiB on a card of {gib} GB, more than {limit}"
            )
        peak_part = max(parts, key=lambda name: parts[name].peak)
        # LOAD transfers whole models. So does REST: ComfyUI creates text encoders on the card if the card's
        # free memory exceeds half of the free RAM. All other parts transfer single layers.
        whole = sum(parts[part].count_gb(to_card=True) for part in (LOAD, REST))
        streamed = total.count_gb(to_card=True) - whole
        end = checkpoint.partition("clips")[2].removesuffix(".safetensors")
        cells = [end or "no T5", f"{gib} GB"]
        cells += [f"{peak:.2f}", peak_part]
        cells += [f"{total.count_gb(to_card=True):.1f}", f"{streamed:.1f}"]
        cells += [f"{total.count_gb(to_card=False):.1f}", f"{len(total.work.transfers):,}"]
        rows.append([template, *cells])
    head = [
        "template",
        "file",
        "card",
        "peak, GiB",
        "peak in part",
        "to card, GB",
        "streamed by layer, GB",
    ]
    print_table(f"Chains of {steps} steps (simulated):", [*head, "back, GB", "transfers"], rows)
    return missed


def run_upscale(card_gib: int) -> tuple[float, float]:
    """Run Real-ESRGAN on a view and on a whole image, and print a table.

    Returns:
        The FLOPs of the view, and the FLOPs of the whole image divided by its number of views.
    """
    view = make_upscale(UPSCALE_WORKFLOW, "CoZZoomViewer", "CoZChainLoop", steps=1, scale=4)
    whole = make_upscale(WHOLE_PICTURE_WORKFLOW, "SaveImage", "CoZFullImage")
    both = {"a view": view, "a picture": whole}
    found = {name: add_parts(run(*made, card_gib).values()) for name, made in both.items()}
    rows = [
        [name, f"{x.work.flops / 1e12:.2f}", f"{x.work.kernels:,}", f"{x.peak / GIB:.2f}"]
        for name, x in found.items()
    ]
    print_table(
        "Real-ESRGAN x4plus at 4x: a view of 512 px, and a whole picture of 512 px (simulated):",
        ["", "TFLOP", "kernels", "peak, GiB"],
        rows,
    )
    views = count_views(4, OVERLAPS["Real-ESRGAN"])
    return found["a view"].work.flops, found["a picture"].work.flops / views


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    toy = options.toy
    sizes = Sizes(2, 1, 8, 1, has_t5=False) if toy else Sizes()
    cards, steps = (TOY_CARDS_GIB, 1) if toy else (CARDS_GIB, STEPS)
    tokens = CHAIN_ANSWER_TOKENS if toy else ANSWER_TOKENS
    pack_name = load_host()
    print(f"card: {steps} steps at 512 px on simulated cards, torch {torch.__version__}")
    with tempfile.TemporaryDirectory(prefix="coz-") as name:
        files = write_files(Path(name), sizes, pack_name)
        add_folders(Path(name))
        step = run(*make_chain(WORKFLOWS["AR-2"], 1, tokens, files.t5_fp8), cards[-1])
        reads = {**dict.fromkeys(PARTS, 1), TOKENS: tokens - 1}
        floors = {part: reads[part] * count for part, count in files.weight_bytes.items()}
        print_step(step, floors, cards[-1])
        print_authors_step(step, run_authors_step(sizes, files.vlm_bytes, Path(name)))
        print_t5_saving(*(run(*make_text_step(n, files.t5_fp8), cards[-1]) for n in (512, 77)))
        missed = run_chains(files, cards, steps)
        sd3 = sum(step[part].work.flops for part in SR)
        view_flops = {"SD3": (sd3, sd3), "Real-ESRGAN": run_upscale(cards[-1])}
    svg, head, rows = draw_costs(view_flops)
    print_table(
        "TFLOP to zoom into one spot of a picture of 512 px (computed from simulated parts):",
        head,
        rows,
    )
    if options.write:
        (ROOT / "benchmarks" / "cost.svg").write_text(svg, "utf-8")
    for part, counts in ({} if toy else TFLOP_AND_GB).items():
        work = step[part].work
        found = round(work.flops / 1e12, 3), round(work.bytes_read / 1e9, 1)
        if found != counts:
            missed.append(f"{part}: TFLOP and GB read are {found}, not {counts}")
    if missed:
        raise SystemExit(f"card: {'; '.join(missed)}")
    print("card: PASS")


if __name__ == "__main__":
    main()
