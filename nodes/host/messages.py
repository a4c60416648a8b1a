"""What nodes say: progress, notices, and the lines that stay on a node."""

import logging
import re
import time
from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from comfy_execution.graph import DynamicPrompt
from comfy_execution.progress import get_progress_state
from comfy_execution.utils import CurrentNodeContext, ExecutionContext, get_executing_context
from server import PromptServer

from ...coz.chain.real_pixels import count_real_pixels, pick_real_pixels_color
from ...coz.chain.zoom_chain import ZoomChain
from ...coz.text.step_prompts import replace_lone_surrogates
from .cache import CHILD_PREFIX
from .graph import running_prompt

CLOSING_KEY = "coz_text"
"""Key of the ui output that js/closing.js draws."""

DOTS_KEY = "coz_dots"
"""Key of the (line, colour in CSS) of its lines that have a dot."""

CALLED = ".called"
"""Suffix of the id that a node has while another one calls it: see ``apart``."""

STEP_ID = re.compile(rf"\.coz_sr_(\d+)({re.escape(CALLED)})?$")
"""The id of the node that sharpens one step of Chain Loop."""


def node_of_graph(node_id: str) -> str:
    """Return the id of the node in the submitted prompt that runs, or that made the one that runs."""
    prompt: DynamicPrompt = running_prompt()
    return prompt.get_real_node_id(node_id.removesuffix(CALLED))


def show(text: str) -> None:
    """Show a line on the node that runs; for a child of Chain Loop, on the loop.

    Does nothing where ComfyUI is used as a library: there is no server then, and no page.
    """
    context: ExecutionContext | None = get_executing_context()
    if context is not None:  # else another node calls execute
        # Frontends before 1.58 take the text for HTML, in which "<" is itself before no letter only.
        # And half of a character, which an edited record may hold, cannot be sent.
        text = replace_lone_surrogates(text.replace("<", "<\u200b"))
        server: PromptServer | None = getattr(PromptServer, "instance", None)
        # To whom it belongs: without its name it would show on every page, on the node of that id.
        if server is not None and server.client_id is not None:
            server.send_progress_text(text, node_of_graph(context.node_id), server.client_id)


@dataclass
class Said:
    """What the nodes of one prompt have said so far."""

    notices: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """By node; the children of one expansion share a list."""
    texts: defaultdict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    """By the node that the page shows, the closing text of each of its expansions."""
    dots: dict[str, str] = field(default_factory=dict)
    """By line of these texts, the colour of its dot."""
    given: set[tuple[str, str]] = field(default_factory=set)
    """The node that the page shows, and a line that ``notice_once`` has given it."""


_said: WeakKeyDictionary[object, Said] = WeakKeyDictionary()
"""By the host's progress of a prompt."""


def running() -> tuple[Said, str, str] | None:
    """What the prompt has said, the id of the node that runs, and its key in ``Said.notices``.

    None where no prompt runs: a script calls execute.
    """
    context: ExecutionContext | None = get_executing_context()
    if context is None:
        return None
    key = context.node_id.removesuffix(CALLED)
    expansion, _, name = key.rpartition(".")
    if name.startswith(CHILD_PREFIX):
        key = expansion
    return _said.setdefault(get_progress_state(), Said()), context.node_id, key


def notice(text: str) -> None:
    """Show a line as ``show`` does, warn in the log, and keep it for ``closing``."""
    logging.getLogger("chain_of_zoom").warning(text)
    show(text)
    if found := running():
        said, _, key = found
        said.notices[key].append(text)


def give_notices(*texts: str) -> list[str]:
    """Give each text that is not empty as a notice, and return all notices since ``take_notices``.

    For a node that expands: the child that collects the expansion shows them again.
    """
    for text in filter(None, texts):
        notice(text)
    return list(dict.fromkeys([*take_notices(), *filter(None, texts)]))


def take_notices() -> list[str]:
    """The notices since the last call, each once, of the node or expansion that runs."""
    if found := running():
        said, _, key = found
        return list(dict.fromkeys(said.notices.pop(key, [])))
    return []


def closing(text: str = "") -> dict[str, list[str]]:
    """Show the last lines of the node that runs; return the ui output that keeps them on the page.

    The notices of the run follow them. A child of an expanding node, or what a node calls, keeps
    nothing: the node that collects the expansion takes its notices and calls
    ``closing_of_expansion``.
    """
    if text:
        show(text)
    found = running()
    if found is None:
        return {}
    _, node_id, key = found
    if node_id != key:
        return {}
    # An empty list too: else the page would still show what an earlier run has said.
    return {
        CLOSING_KEY: [*filter(None, [replace_lone_surrogates(join_lines(text, *take_notices()))])]
    }


def closing_of_expansion(text: str, dots: dict[str, str] | None = None) -> dict[str, list]:
    """As ``closing``, for the child that collects an expansion: its notices are in ``text``.

    An expanding node expands once for each picture of a list, and the frontend keeps the newest
    output only: so each text comes with the others of the same prompt. ``dots`` are the colours in
    CSS of the dots that the page draws before some lines.
    """
    show(text)
    found = running()
    if found is None:
        return {}
    said, node_id, _ = found
    texts = said.texts[node_of_graph(node_id)]
    texts[node_id] = replace_lone_surrogates(text)
    in_order = sorted(texts, key=lambda child: (len(child), child))
    said.dots |= dots or {}
    return {CLOSING_KEY: [texts[child] for child in in_order], DOTS_KEY: [*said.dots.items()]}


def join_lines(*texts: str | None) -> str:
    """The texts that are not empty, one below the other."""
    return "\n".join(filter(None, texts))


def notice_once(text: str) -> None:
    """Show a line as ``notice`` does, once on a node in a prompt; a loop's children count as the loop."""
    if found := running():
        said, node_id, key = found
        given = node_of_graph(node_id), text
        if given in said.given:
            if text not in said.notices[key]:  # of another picture of a list: its text has it too
                said.notices[key].append(text)
            return
        said.given.add(given)
    notice(text)


def apart() -> AbstractContextManager:
    """For a node that calls others: inside, their own short progress does not show in its place."""
    context: ExecutionContext | None = get_executing_context()
    if context is None:
        return nullcontext()
    node_id = context.node_id.removesuffix(CALLED) + CALLED
    return CurrentNodeContext(context.prompt_id, node_id, context.list_index)


def time_left(started: float, done: int, count: int) -> str:
    """Of ``count`` like pieces of work begun at ``started``: ", about 3 min left", or nothing."""
    seconds = (time.monotonic() - started) / done * (count - done)
    if seconds < 5:
        return ""
    return (
        f", about {seconds:.0f} s left" if seconds < 90 else f", about {seconds / 60:.0f} min left"
    )


def color_of_real_pixels(chain: ZoomChain, layer: int) -> str:
    """In the form of CSS, for the page."""
    red, green, blue = pick_real_pixels_color(count_real_pixels(chain, layer).share)
    return f"rgb({red}, {green}, {blue})"
