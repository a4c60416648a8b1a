from comfy_api.latest import io

from ..host.control import require_same_family


class CoZFamilyCheck(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZFamilyCheck",
            display_name="CoZ Family Check",
            category="Chain-of-Zoom/step",
            description="Internal: refuses a ControlNet of another model family before any work.",
            is_dev_only=True,
            is_output_node=True,  # ComfyUI runs output nodes first
            inputs=[io.Model.Input("model"), io.ControlNet.Input("control_net")],
        )

    @classmethod
    def execute(cls, model, control_net) -> io.NodeOutput:
        require_same_family(model, control_net)
        return io.NodeOutput()
