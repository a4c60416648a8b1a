"""Compare the time of CoZ SR Step on the CPU with that of its bare parts: encode, network and decode.

Limit: the node takes at most 1.05 times as long. The transformer is small, which makes the node's share
larger than usual.
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.support.random_sd3 import autoencoder, sd3_transformer
from tools.host.in_process import load_pack

SIDE = 256
BLOCKS = 8
RUNS = 9
MAX_TIME_RATIO = 1.05


def load_models():
    import comfy.sd

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "transformer.safetensors"
        save_file(sd3_transformer(BLOCKS).state_dict(), path)
        options = {"dtype": torch.float32}
        model = comfy.sd.load_diffusion_model(str(path), model_options=options)
    return model, comfy.sd.VAE(sd=autoencoder().state_dict(), dtype=torch.float32)


def run_bare(model, vae, positive, image):
    from comfy.model_management import load_models_gpu

    (context, extra), *_ = positive
    z = vae.encode(image) * model.model.latent_format.scale_factor
    load_models_gpu([model])
    denoised = model.model.apply_model(
        z, torch.ones(1), c_crossattn=context, y=extra["pooled_output"]
    )
    return vae.decode(model.model.latent_format.process_out(denoised))


@torch.inference_mode()
def main() -> None:
    load_pack(on_cpu=True)
    import nodes

    step = nodes.NODE_CLASS_MAPPINGS["CoZSRStep"]
    model, vae = load_models()
    positive = [[torch.randn(1, 589, 4096), {"pooled_output": torch.randn(1, 2048)}]]
    image = torch.rand(1, SIDE, SIDE, 3)
    calls = {
        "node": lambda: step.execute(model, vae, positive, image)[0],
        "bare": lambda: run_bare(model, vae, positive, image),
    }
    results = {name: call() for name, call in calls.items()}
    worst = (results["node"] - results["bare"]).abs().max().item()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(RUNS):
        for name in sorted(calls, reverse=i % 2 == 1):
            start = time.perf_counter()
            calls[name]()
            seconds[name].append(time.perf_counter() - start)
    node, bare = (statistics.median(seconds[name]) for name in ("node", "bare"))
    print(
        f"step: {1000 * node:.0f} ms in CoZ SR Step, {1000 * bare:.0f} ms without it at {SIDE} px: "
        f"{node / bare:.3f}x (limit: {MAX_TIME_RATIO}); greatest difference {worst:.1e}"
    )
    if node / bare > MAX_TIME_RATIO or worst > 1e-5:
        raise SystemExit("step: over the limit")


if __name__ == "__main__":
    main()
