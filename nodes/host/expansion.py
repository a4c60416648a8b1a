"""The nodes that an expanding node becomes."""

from comfy_api.latest import io
from comfy_execution.graph import DynamicPrompt
from comfy_execution.graph_utils import ExecutionBlocker, GraphBuilder, Node
from comfy_execution.utils import ExecutionContext, get_executing_context

from .cache import CACHE, CHILD_PREFIX

AS_LINKS = {"raw_link": True, "lazy": True}
"""For a node that expands: it hands its models on to its children. (Inside a dynamic combo ComfyUI
ignores ``lazy``: their loaders run.)"""

BLOCKED = ExecutionBlocker(None)
"""As an output: what depends on it does not run, and no error is shown."""


class Expansion:
    """The nodes that a node becomes when it runs.

    They get links and constants, never tensors, and nothing that they do not read: only then does
    ComfyUI recognise a child that it has already run.
    """

    def __init__(self, node: type[io.ComfyNode], reporters: set[str] | None = None):
        """``reporters``: the classes of children that show their progress on the node; None: all."""
        CACHE.register()
        self.node_id = node.hidden.unique_id
        self.reporters = reporters
        self._graph = GraphBuilder()
        prompt: DynamicPrompt = node.hidden.dynprompt
        self.links = prompt.get_node(self.node_id)["inputs"]
        """The links and values of the node's inputs."""
        context: ExecutionContext = get_executing_context()
        self.index = context.list_index or 0
        """Which one of the images of a list the node runs for."""

    def add_node(self, class_type: str, name: str, **inputs) -> Node:
        graph: GraphBuilder = self._graph
        child: Node = graph.node(class_type, id=CHILD_PREFIX + name, **inputs)
        if self.reporters is not None and class_type not in self.reporters:
            child.set_override_display_id(f"{self.node_id}.steps")
        return child

    def finish(self, *outputs) -> io.NodeOutput:
        """Return these links to outputs of the children as the node's own."""
        graph: GraphBuilder = self._graph
        return io.NodeOutput(*outputs, expand=graph.finalize())


def nest_inputs(name: str, chosen: dict) -> dict:
    """Return the inputs of a dynamic combo as a prompt writes them."""
    inside = {f"{name}.{key}": value for key, value in chosen.items() if key != name}
    return {name: chosen[name], **inside}
