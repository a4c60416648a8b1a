"""Chain-of-Zoom, the algorithm: extreme super-resolution by zooming in steps.

Bryan Sangwoo Kim, Jeongsol Kim, Jong Chul Ye: "Chain-of-Zoom: Extreme Super-Resolution via Scale
Autoregression and Preference Alignment", NeurIPS 2025, arXiv 2505.18600. Plain torch; nothing
here knows ComfyUI.
"""

from .chain import ZoomChain, __version__, step_seed
from .color import adain_align, wavelet_align
from .geometry import Target, Window, carry_target, first_frame, plan_steps, zoom_window
from .latent import one_step_noise, pad_to_multiple, to_model, to_vae
from .prompt import join_texts, step_texts
from .resample import crop, resize
from .strip import strip
from .view import Zoom, zoom_times

__all__ = [
    "Target",
    "Window",
    "Zoom",
    "ZoomChain",
    "__version__",
    "adain_align",
    "carry_target",
    "crop",
    "first_frame",
    "join_texts",
    "one_step_noise",
    "pad_to_multiple",
    "plan_steps",
    "resize",
    "step_seed",
    "step_texts",
    "strip",
    "to_model",
    "to_vae",
    "wavelet_align",
    "zoom_times",
    "zoom_window",
]
