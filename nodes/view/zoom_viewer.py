from concurrent.futures import ThreadPoolExecutor

from comfy_api.latest import io, ui

from ...coz.fidelity.summary import describe_depth
from ...coz.resample import resize
from ..host.images import hide_files, to_image
from ..host.sockets import Chain
from .marks import keep_record

MAX_PNG_WRITERS = 4
"""Number of images written at once: a PNG of 12 megapixels takes a second, and memory for two copies."""

RESULT_KEY = "coz_deepest"
"""Key of the node's result in an app. Not "images": ComfyUI would draw those again, below the viewer."""


class CoZZoomViewer(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZZoomViewer",
            display_name="CoZ Zoom Viewer",
            category="Chain-of-Zoom/view",
            description="Shows a whole chain as one image that you can zoom into, from the source image to "
            "the deepest frame. It shows the number of real pixels and the prompt of each step, compares "
            "the chain with plain enlargement, and can start a new chain at the place that you look at.",
            search_aliases=["viewer", "preview", "deep zoom", "pan and zoom", "compare"],
            is_output_node=True,
            inputs=[Chain.Input("chain", tooltip="The chain of Chain Loop or CoZ Load Chain.")],
            outputs=[],
        )

    @classmethod
    def execute(cls, chain) -> io.NodeOutput:
        height, width = chain.frames[1].shape[-2:]

        def save(image) -> ui.SavedResult:
            # Save one by one: a batch would hold the whole chain in memory a second time.
            (saved,) = ui.PreviewImage(to_image(image)).as_dict()["images"]
            return saved

        def save_bicubic(layer: int) -> ui.SavedResult:
            """Save the window of the source that an invented frame shows, enlarged with bicubic."""
            box = chain.find_window_in(layer, 0)
            return save(resize(chain.frames[0], height, width, box=box))

        with ThreadPoolExecutor(MAX_PNG_WRITERS) as pool:
            layers = pool.map(save, chain.frames)
            bicubic = pool.map(save_bicubic, range(2, len(chain.frames)))
        layers, bicubic = list(layers), list(bicubic)
        keep_record(chain, [layer["filename"] for layer in layers])
        shown = {
            "coz_layers": [hide_files(layers)],
            "coz_bicubic": [hide_files(bicubic)],
            "coz_chain": [chain.to_json()],
            RESULT_KEY: [{**layers[-1], "display_name": describe_depth(chain)}],
        }
        return io.NodeOutput(ui=shown)
