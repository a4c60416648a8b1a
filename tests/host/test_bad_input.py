"""What cannot run, in the real host: the sentence that a person reads, and that it comes in time."""

from .prompts import chain_prompt


def renamed(prompt, names):
    """The prompt with other node ids."""

    def link(value):
        return [names.get(value[0], value[0]), value[1]] if isinstance(value, list) else value

    return {
        names.get(node, node): {
            **about,
            "inputs": {key: link(value) for key, value in about["inputs"].items()},
        }
        for node, about in prompt.items()
    }


def told(host):
    """(node, text) of each line that was shown on a node."""
    return [data for event, data in host.server.sent if event == "progress_text"]


def test_a_node_id_with_a_dot_gets_its_lines(executor):
    host = executor("CLASSIC")
    host.run(renamed(chain_prompt(steps=1), {"loop": "a.b"}))
    assert {node for node, _ in told(host)} == {"a.b"}


def test_a_node_id_with_a_dot_gets_its_picture(executor):
    host = executor("CLASSIC")
    prompt = chain_prompt()
    prompt["zoom"] = {
        "class_type": "CoZCropCenterZoom",
        "inputs": {"image": ["source", 0], "scale": 4.0, "center_x": 0.5, "center_y": 0.5},
    }
    prompt["shown"] = {"class_type": "PreviewImage", "inputs": {"images": ["zoom", 0]}}
    host.run(renamed(prompt, {"zoom": "a.b"}), "shown")
    assert host.ui("a.b")["coz_source"][0]["width"] == 512
