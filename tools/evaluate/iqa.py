"""Compute the paper's no-reference scores with pyiqa, if the user has installed it.

pyiqa is for non-commercial use (PolyForm Noncommercial 1.0.0), so this project neither ships it nor
runs it in its tests. The calls and file names follow its sources as published in 2026. Other
releases may differ and give other scores.
"""

from collections.abc import Callable
from importlib.util import find_spec

from torch import Tensor

from .weights import MissingWeightsError, WeightFile, load_network

WEIGHTS_URL = "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/"
CLIP_URL = (
    "https://openaipublic.azureedge.net/clip/models/"
    "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762/RN50.pt"
)
VIT_INSTRUCTION = ", and run: hf download timm/vit_base_patch8_224.augreg2_in21k_ft_in1k"
"""pyiqa/archs/maniqa_arch.py loads this through timm, which looks in the Hugging Face cache."""

PYIQA_NAMES = {"niqe": "niqe", "musiq": "musiq", "maniqa": "maniqa-pipal", "clipiqa": "clipiqa"}
"""Metric -> pyiqa's name of the variant that Chain-of-Zoom uses (arXiv 2505.18600)."""

WEIGHT_FILES = {
    "niqe": WeightFile(WEIGHTS_URL + "niqe_modelparameters.mat", "pyiqa"),
    "musiq": WeightFile(WEIGHTS_URL + "musiq_koniq_ckpt-e95806b9.pth", "pyiqa"),
    "maniqa": WeightFile(WEIGHTS_URL + "MANIQA_PIPAL-ae6d356b.pth", "pyiqa", VIT_INSTRUCTION),
    "clipiqa": WeightFile(CLIP_URL, "clip"),
}
"""Metric -> its weight file. Folders: DEFAULT_CACHE_DIR in pyiqa/utils/download_util.py, and ``load``
in pyiqa/archs/clip_model.py."""


def load_score(name: str, device: str) -> Callable[[Tensor], float]:
    if find_spec("pyiqa") is None:
        raise MissingWeightsError(
            f"{name.upper()}: pyiqa is not installed; it is for non-commercial use: pip install pyiqa, "
            f"then {WEIGHT_FILES[name].instruction}"
        )

    def build():
        from pyiqa import create_metric

        return create_metric(PYIQA_NAMES[name], device=device)

    metric = load_network(name.upper(), [WEIGHT_FILES[name]], build)
    return lambda image: float(metric(image.to(device)))
