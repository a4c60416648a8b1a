from comfy_api.latest import io, ui

from ...coz.fidelity.back_projection import back_project, start_measuring_agreement
from ...coz.fidelity.invented import start_measuring_invented_energy
from ...coz.fidelity.pending_figure import read_figures
from ..host.images import to_bchw
from ..host.messages import take_notices
from ..host.sockets import PreviewFiles


class CoZChainCheck(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZChainCheck",
            display_name="CoZ Chain Check",
            category="Chain-of-Zoom/step",
            description="Internal: corrects a finished step, measures its agreement and shows it on its "
            "Chain Loop.",
            is_dev_only=True,
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            inputs=[
                io.Image.Input("image"),
                io.Image.Input("crop"),
                io.Image.Input("zoomed"),
                io.Float.Input("strength"),
            ],
            outputs=[
                io.Image.Output("image"),
                PreviewFiles.Output("preview_files"),
                io.Float.Output("agreement"),
                io.Float.Output("invented"),
                io.String.Output("notices"),
            ],
        )

    @classmethod
    def execute(cls, image, crop, zoomed, strength) -> io.NodeOutput:
        """Correct, measure and show the result of a step.

        This is what CoZ Keep True to Source does, without enlarging the crop a second time.
        """
        # Contiguous channels make everything below much faster.
        sr, lq = to_bchw(image).contiguous(), to_bchw(crop, "crop").contiguous()
        result = None
        if strength > 0:
            sr = back_project(sr, lq, strength).clamp_(0, 1)
            result = image = sr.movedim(1, -1)
        preview = ui.PreviewImage(image, cls=cls)
        enlarged = to_bchw(zoomed, "zoomed").contiguous()
        agreement, share = read_figures(
            start_measuring_agreement(sr, lq), start_measuring_invented_energy(sr, enlarged)
        )
        # Without a correction the first output is empty: otherwise the cache would count the step's
        # image twice. The notices of the step are an output, so that they are cached with the step.
        notices = "\n".join(take_notices())
        return io.NodeOutput(result, preview.values, agreement, share, notices, ui=preview)
