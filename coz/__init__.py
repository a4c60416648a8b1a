"""Chain-of-Zoom, the algorithm: extreme super-resolution by zooming in steps.

Bryan Sangwoo Kim, Jeongsol Kim, Jong Chul Ye: "Chain-of-Zoom: Extreme Super-Resolution via Scale
Autoregression and Preference Alignment", NeurIPS 2025, arXiv 2505.18600. The package uses plain torch
and imports nothing of ComfyUI.
"""

from .chain.zoom_chain import ZoomChain, __version__, derive_step_seed
from .color.align import (
    adain_align,
    histogram_align,
    measure_low_frequency_distance,
    wavelet_align,
    ycbcr_align,
)
from .color.method import best_align, color_align, hybrid_align
from .ensemble import self_ensemble
from .fidelity.back_projection import back_project, measure_agreement
from .fidelity.invented import (
    map_disagreement,
    map_invented,
    measure_invented_energy,
    measure_octaves,
)
from .geometry import (
    Target,
    Window,
    carry_target,
    place_first_frame,
    place_window,
    plan_steps,
    plan_zoom,
)
from .latent import make_one_step_noise, pad_to_multiple, scale_to_model, scale_to_vae
from .render.strip import draw_strip
from .render.zoom_video import ZoomVideo, plan_zoom_positions
from .resample import crop, resize
from .text.step_prompts import choose_step_texts, join_texts
from .tiles.blend import TileBlend
from .tiles.complexity import rate_complexity
from .tiles.layout import TileLayout, TileRow, plan_adaptive_layout, plan_layout
from .zoom import View, zoom

__all__ = [
    "Target",
    "TileBlend",
    "TileLayout",
    "TileRow",
    "View",
    "Window",
    "ZoomChain",
    "ZoomVideo",
    "__version__",
    "adain_align",
    "back_project",
    "best_align",
    "carry_target",
    "choose_step_texts",
    "color_align",
    "crop",
    "derive_step_seed",
    "draw_strip",
    "histogram_align",
    "hybrid_align",
    "join_texts",
    "make_one_step_noise",
    "map_disagreement",
    "map_invented",
    "measure_agreement",
    "measure_invented_energy",
    "measure_low_frequency_distance",
    "measure_octaves",
    "pad_to_multiple",
    "place_first_frame",
    "place_window",
    "plan_adaptive_layout",
    "plan_layout",
    "plan_steps",
    "plan_zoom",
    "plan_zoom_positions",
    "rate_complexity",
    "resize",
    "scale_to_model",
    "scale_to_vae",
    "self_ensemble",
    "wavelet_align",
    "ycbcr_align",
    "zoom",
]
