"""Out-of-memory errors that say what to do."""

from contextlib import contextmanager

import comfy.model_management


@contextmanager
def explain_out_of_memory(what: str, way_out: str):
    """Add to an out-of-memory error what did not fit into the GPU's memory, and what to do.

    The error keeps its class, from which ComfyUI knows that it has to free memory.
    """
    try:
        yield
    except Exception as error:
        comfy.model_management.raise_non_oom(error)
        raise type(error)(
            f"{error}\n{what} did not fit into the GPU's memory: {way_out}, close other programs that use the "
            "GPU, or start ComfyUI with --novram, which is slower"
        ) from None
