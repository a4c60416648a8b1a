"""Compare the CPU time of CoZ InvSR Step with that of the calls that it makes, with one sampling step.

The calls are encode, the noise predictor, one forward pass and decode. Limit: the node takes at most 1.05
times as long. The U-Net and the predictor are small, which makes the node's share larger than usual.
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from coz.networks.noise_predictor import sample_noise
from tests.support.small_models import SD2_SHAPE, small_predictor, small_sd2
from tools.host.in_process import load_pack

LQ_SIDE = 32
RUNS = 5
MAX_TIME_RATIO = 1.05
TIMESTEP = 199
SEED = 0
SD2_STAGES = {
    "num_res_blocks": [2] * 4,
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1] * 6 + [0] * 2,
    "transformer_depth_output": [1] * 9 + [0] * 3,
}


def load_models():
    import comfy.sd
    import folder_paths

    import nodes

    stages = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    autoencoder = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=stages[0],
        up_block_types=stages[1],
        layers_per_block=2,
    )
    with tempfile.TemporaryDirectory() as folder:
        save_file(small_predictor(), Path(folder) / "small_predictor.safetensors")
        folder_paths.add_model_folder_path("model_patches", folder)
        loader = nodes.NODE_CLASS_MAPPINGS["CoZLoadInvSR"]
        model = loader.execute(small_sd2(**SD2_STAGES), "small_predictor.safetensors")[0]
    return model, comfy.sd.VAE(sd=autoencoder.state_dict(), dtype=torch.float32)


def run_bare(model, vae, positive, crop):
    import comfy.sample
    from comfy.model_management import load_models_gpu

    lq = crop.movedim(-1, 1).contiguous()
    enlarged = F.interpolate(lq, scale_factor=4, mode="bicubic").movedim(1, -1)
    latent = vae.encode(enlarged)
    (predictor,) = model.get_additional_models()
    load_models_gpu([model, predictor])
    moments = predictor.model(lq, TIMESTEP)
    noise = sample_noise(moments, comfy.sample.prepare_noise(latent, SEED))
    latent_format, sampling = model.model.latent_format, model.model.model_sampling
    sigma = sampling.sigmas[TIMESTEP : TIMESTEP + 1]
    noisy = latent_format.process_in(latent) + sigma * noise
    denoised = model.model.apply_model(noisy, sigma, c_crossattn=positive[0][0])
    return vae.decode(latent_format.process_out(denoised))


@torch.inference_mode()
def main() -> None:
    load_pack(on_cpu=True)
    import nodes

    step = nodes.NODE_CLASS_MAPPINGS["CoZInvSRStep"]
    model, vae = load_models()
    positive = [[torch.randn(1, 77, SD2_SHAPE["context_dim"]), {}]]
    crop = torch.rand(1, LQ_SIDE, LQ_SIDE, 3)
    zoomed = torch.zeros(1, 4 * LQ_SIDE, 4 * LQ_SIDE, 3)
    calls = {
        "node": lambda: step.execute(model, vae, positive, positive, crop, zoomed, seed=SEED)[0],
        "bare": lambda: run_bare(model, vae, positive, crop),
    }
    results = {name: call() for name, call in calls.items()}
    worst = (results["node"] - results["bare"]).abs().max().item()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(RUNS):
        for name in sorted(calls, reverse=i % 2 == 1):
            start = time.process_time()
            calls[name]()
            seconds[name].append(time.process_time() - start)
    node, bare = (statistics.median(seconds[name]) for name in ("node", "bare"))
    print(
        f"inversion: {1000 * node:.0f} ms of CPU in CoZ InvSR Step, {1000 * bare:.0f} ms without it at "
        f"{4 * LQ_SIDE} px: {node / bare:.3f}x (limit: {MAX_TIME_RATIO}); greatest difference {worst:.1e}"
    )
    if node / bare > MAX_TIME_RATIO or worst > 1e-5:
        raise SystemExit("inversion: over the limit")


if __name__ == "__main__":
    main()
