"""Show texts on nodes: progress, notices, and the closing text that stays after a run."""

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
from .graph import get_running_prompt

CLOSING_KEY = "coz_text"
"""Key of the ui output with the closing texts, which js/closing.js draws."""

DOTS_KEY = "coz_dots"
"""Key of the ui output with (line, CSS color) for each line of the closing text that has a dot."""

CALLED_SUFFIX = ".called"
"""Added to the id of a node while it calls other nodes: see ``hide_called_progress``."""

STEP_ID = re.compile(rf"\.coz_sr_(\d+)({re.escape(CALLED_SUFFIX)})?$")
"""Pattern of the id of the node that sharpens one step of Chain Loop."""


def find_node_on_page(node_id: str) -> str:
    """Return the id of the node that the page shows: this node, or the one whose expansion added it."""
    prompt: DynamicPrompt = get_running_prompt()
    return prompt.get_real_node_id(node_id.removesuffix(CALLED_SUFFIX))


def show_on_node(text: str) -> None:
    """Show a text on the node that runs; for a child of Chain Loop, on the loop.

    Do nothing if ComfyUI is used as a library, without a server and a page.
    """
    context: ExecutionContext | None = get_executing_context()
    if context is not None:  # None: a script calls execute
        # Frontends before 1.58 render this text as HTML; a zero-width space after "<" keeps it literal.
        # A lone surrogate, which an edited record may hold, cannot be sent.
        text = replace_lone_surrogates(text.replace("<", "<\u200b"))
        server: PromptServer | None = getattr(PromptServer, "instance", None)
        # Without a client id, the text would appear on every open page, on the node with the same id.
        if server is not None and server.client_id is not None:
            server.send_progress_text(text, find_node_on_page(context.node_id), server.client_id)


@dataclass
class PromptMessages:
    """The notices and closing texts of one prompt so far."""

    notices: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Notices by node id; the children of one expansion share a list."""
    texts: defaultdict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    """Node on the page -> {child that collects one of its expansions -> closing text of that expansion}."""
    dots: dict[str, str] = field(default_factory=dict)
    """Line of these texts -> CSS color of its dot."""
    given_once: set[tuple[str, str]] = field(default_factory=set)
    """(id of a node on the page, notice) for each notice of ``give_notice_once``."""


_messages: WeakKeyDictionary[object, PromptMessages] = WeakKeyDictionary()
"""ComfyUI's progress registry of a prompt -> the messages of that prompt."""


def find_messages() -> tuple[PromptMessages, str, str] | None:
    """Return the prompt's messages, the id of the running node, and its key in ``notices``.

    None if no prompt runs because a script calls execute.
    """
    context: ExecutionContext | None = get_executing_context()
    if context is None:
        return None
    key = context.node_id.removesuffix(CALLED_SUFFIX)
    expansion, _, name = key.rpartition(".")
    if name.startswith(CHILD_PREFIX):
        key = expansion
    return _messages.setdefault(get_progress_state(), PromptMessages()), context.node_id, key


def give_notice(text: str) -> None:
    """Show a text with ``show_on_node``, log it as a warning, and keep it for ``finish_with_notices``."""
    logging.getLogger("chain_of_zoom").warning(text)
    show_on_node(text)
    if found := find_messages():
        messages, _, key = found
        messages.notices[key].append(text)


def give_notices(*texts: str) -> list[str]:
    """Give each text that is not empty as a notice; return all notices since the last ``take_notices``.

    An expanding node passes them to the child that collects the expansion, which shows them again.
    """
    for text in filter(None, texts):
        give_notice(text)
    return list(dict.fromkeys([*take_notices(), *filter(None, texts)]))


def take_notices() -> list[str]:
    """Return, and forget, the distinct notices of the node or expansion that runs."""
    if found := find_messages():
        messages, _, key = found
        return list(dict.fromkeys(messages.notices.pop(key, [])))
    return []


def finish_with_notices(text: str = "") -> dict[str, list[str]]:
    """Return the ui output that keeps the closing text of the running node on the page.

    The closing text is ``text``, which is also shown now, and the notices of the run. The output is empty if
    the node is a child of an expanding node, or is called by another node. The child that collects the
    expansion shows the notices of such nodes (``show_expansion_closing_text``).
    """
    if text:
        show_on_node(text)
    found = find_messages()
    if found is None:
        return {}
    _, node_id, key = found
    if node_id != key:
        return {}
    # Even if the list is empty: without it, the page would keep the text of an earlier run.
    return {
        CLOSING_KEY: [
            *filter(None, [replace_lone_surrogates(join_with_line_breaks(text, *take_notices()))])
        ]
    }


def show_expansion_closing_text(text: str, dots: dict[str, str] | None = None) -> dict[str, list]:
    """Show the closing text of an expansion; called by the child that collects it.

    ``text`` includes the notices. ``dots`` maps some of its lines to the CSS color of the dot that
    the page draws before them. An expanding node expands once for each image of a list, and the
    frontend keeps only the newest output: so the output has the texts of all its expansions.
    """
    show_on_node(text)
    found = find_messages()
    if found is None:
        return {}
    messages, node_id, _ = found
    texts = messages.texts[find_node_on_page(node_id)]
    texts[node_id] = replace_lone_surrogates(text)
    in_order = sorted(texts, key=lambda child: (len(child), child))
    messages.dots |= dots or {}
    return {CLOSING_KEY: [texts[child] for child in in_order], DOTS_KEY: [*messages.dots.items()]}


def join_with_line_breaks(*texts: str | None) -> str:
    """Join the texts that are not empty with line breaks."""
    return "\n".join(filter(None, texts))


def give_notice_once(text: str) -> None:
    """Give a notice once per prompt and node of the page; the children of a loop count as the loop."""
    if found := find_messages():
        messages, node_id, key = found
        given = find_node_on_page(node_id), text
        if given in messages.given_once:
            # Another image of a list may have given it: add it to this closing text too.
            if text not in messages.notices[key]:
                messages.notices[key].append(text)
            return
        messages.given_once.add(given)
    give_notice(text)


def hide_called_progress() -> AbstractContextManager:
    """Return a context in which the progress of called nodes does not replace that of the caller."""
    context: ExecutionContext | None = get_executing_context()
    if context is None:
        return nullcontext()
    node_id = context.node_id.removesuffix(CALLED_SUFFIX) + CALLED_SUFFIX
    return CurrentNodeContext(context.prompt_id, node_id, context.list_index)


def describe_time_left(started: float, done: int, count: int) -> str:
    """Return ", about 3 min left" after ``done`` of ``count`` equal tasks; "" for less than 5 seconds."""
    seconds = (time.monotonic() - started) / done * (count - done)
    if seconds < 5:
        return ""
    return (
        f", about {seconds:.0f} s left" if seconds < 90 else f", about {seconds / 60:.0f} min left"
    )


def pick_css_color(chain: ZoomChain, layer: int) -> str:
    """Return the CSS color for the share of real pixels in a layer of the chain."""
    red, green, blue = pick_real_pixels_color(count_real_pixels(chain, layer).share)
    return f"rgb({red}, {green}, {blue})"
