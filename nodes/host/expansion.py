"""Replace a node by other nodes when it runs."""

from comfy_api.latest import io
from comfy_execution.graph import DynamicPrompt
from comfy_execution.graph_utils import ExecutionBlocker, GraphBuilder, Node
from comfy_execution.utils import ExecutionContext, get_executing_context

from .cache import CACHE, CHILD_PREFIX

AS_LINKS = {"raw_link": True, "lazy": True}
"""Options of an input whose link an expanding node passes on to its children. (Inside a dynamic combo
ComfyUI ignores ``lazy``: the models are loaded even if no child needs them.)"""

BLOCKED = ExecutionBlocker(None)
"""An output with this value keeps all nodes that depend on it from running, without an error."""


class Expansion:
    """The child nodes that replace a node when it runs.

    Give a child only what it reads, and only links and constants, never tensors: anything else
    causes cache misses on unrelated edits.
    """

    def __init__(self, node: type[io.ComfyNode], reporters: set[str] | None = None):
        """Start with no children.

        Args:
            reporters: Classes of the children that show progress on the node; None for all.
        """
        CACHE.register()
        self.node_id = node.hidden.unique_id
        self.reporters = reporters
        self._graph = GraphBuilder()
        prompt: DynamicPrompt = node.hidden.dynprompt
        self.links = prompt.get_node(self.node_id)["inputs"]
        """The links and values of the node's inputs."""
        context: ExecutionContext = get_executing_context()
        self.index = context.list_index or 0
        """Index of the item that the node runs for, where its inputs are lists."""

    def add_node(self, class_type: str, name: str, **inputs) -> Node:
        graph: GraphBuilder = self._graph
        child: Node = graph.node(class_type, id=CHILD_PREFIX + name, **inputs)
        if self.reporters is not None and class_type not in self.reporters:
            child.set_override_display_id(f"{self.node_id}.steps")
        return child

    def finish(self, *outputs) -> io.NodeOutput:
        """Return these links to outputs of children as the outputs of the node."""
        graph: GraphBuilder = self._graph
        return io.NodeOutput(*outputs, expand=graph.finalize())


def nest_inputs(name: str, chosen: dict) -> dict:
    """Return the inputs of a dynamic combo as a prompt in API format names them: "backbone.model"."""
    inside = {f"{name}.{key}": value for key, value in chosen.items() if key != name}
    return {name: chosen[name], **inside}
