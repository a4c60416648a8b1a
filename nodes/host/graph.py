"""Read the submitted prompt as a graph: the nodes before and after a node."""

from pathlib import Path

import folder_paths
from comfy_execution.graph import DynamicPrompt
from comfy_execution.graph_utils import is_link
from comfy_execution.progress import ProgressRegistry, get_progress_state


def get_running_prompt() -> DynamicPrompt:
    """Return the prompt that runs, with the nodes that its nodes expanded into."""
    progress: ProgressRegistry = get_progress_state()
    return progress.dynprompt


def list_used_models(dynprompt: DynamicPrompt, node_id: str) -> list[str]:
    """List the model files that are named in the inputs of a node and of all nodes before it.

    What comes in through the node's input ``chain`` is left out, because the record of that chain lists it.
    """
    names, seen, waiting = [], set(), [node_id]
    while waiting:
        current = waiting.pop(0)
        if current in seen:
            continue
        seen.add(current)
        for key, value in dynprompt.get_node(current)["inputs"].items():
            if (current, key) == (node_id, "chain"):
                continue
            if is_link(value):
                waiting.append(value[0])
            elif (
                isinstance(value, str)
                and Path(value).suffix in folder_paths.supported_pt_extensions
            ):
                names.append(value)
    return list(dict.fromkeys(names))


def is_connected(dynprompt: DynamicPrompt, node_id: str, output: int) -> bool:
    """Whether any node of the prompt takes this output."""
    if dynprompt.get_parent_node_id(node_id) is not None:
        # The node is a child of an expanding node. Other nodes link to that node, so it is unknown
        # whether this output is used: assume that it is.
        return True
    return any(
        is_link(value) and tuple(value) == (node_id, output)
        for other in dynprompt.all_node_ids()
        for value in dynprompt.get_node(other)["inputs"].values()
    )
