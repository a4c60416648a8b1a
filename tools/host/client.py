"""Run prompts on a ComfyUI server and collect what it reports."""

import asyncio
import json
import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import requests

Event = dict[str, Any]

TEXT_MESSAGE = 3
"""The value of BinaryEventTypes.TEXT in ComfyUI's protocol.py."""


class PromptError(RuntimeError):
    """The server refused the prompt, or a node of it raised an error."""


@dataclass
class Run:
    """One prompt that ran: the server's messages and the outputs of its nodes."""

    prompt_id: str
    events: list[Event] = field(default_factory=list)
    """The server's messages about the prompt, in order: {"type": ..., "data": {...}}."""
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Node id -> the node's ui output, as in the server's history."""
    notices: list[tuple[str, str]] = field(default_factory=list)
    """(node id, text) of each notice."""

    @property
    def executed(self) -> list[str]:
        """The ids of the nodes that ran, in order, without those whose output came from the cache."""
        nodes = [event["data"]["node"] for event in self.events if event["type"] == "executing"]
        return list(dict.fromkeys(node for node in nodes if node is not None))


def run_prompt(
    url: str, prompt: dict[str, Any], on_event: Callable[[Event], None] = lambda event: None
) -> Run:
    """Submit a prompt in the API format, wait until it is done and return what happened.

    Raises:
        PromptError: If the prompt is refused, fails or is interrupted. It quotes the server.
        OSError: If the server does not answer.
    """
    try:
        return asyncio.run(_run(url, prompt, on_event))
    except aiohttp.ClientError as error:
        raise ConnectionError(str(error)) from error


class ServerClient:
    """The routes of a server for uploads, images and system information.

    Every method raises OSError if the server does not answer or refuses the request.
    """

    def __init__(self, url: str):
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False  # the server is local: use no proxy

    def upload(self, picture: bytes, name: str = "picture.png", **form: str) -> str:
        """Put a PNG file into the server's input folder and return its name there.

        Args:
            picture: The file's content.
            name: The wanted name; the server chooses another one if it is taken.
            form: The route's other fields, such as ``subfolder``.
        """
        files = {"image": (name, picture, "image/png")}
        answer = self.session.post(f"{self.url}/upload/image", files=files, data=form)
        answer.raise_for_status()
        place = answer.json()
        return "/".join(filter(None, (place["subfolder"], place["name"])))

    def download(self, image: dict[str, str]) -> bytes:
        """Download a file that a node's ui output names."""
        return self._get("view", params=image).content

    def get_stats(self, timeout: float | None = None) -> dict[str, Any]:
        """Return the server's versions, devices and command line."""
        return self._get("system_stats", timeout=timeout).json()

    def _get(self, path: str, **options: Any) -> requests.Response:
        answer = self.session.get(f"{self.url}/{path}", **options)
        answer.raise_for_status()
        return answer


async def _run(url: str, prompt: dict[str, Any], on_event: Callable[[Event], None]) -> Run:
    client_id = uuid.uuid4().hex
    async with (
        aiohttp.ClientSession(url) as session,
        session.ws_connect(f"/ws?clientId={client_id}", max_msg_size=0) as socket,
    ):
        body = {"prompt": prompt, "client_id": client_id}
        async with session.post("/prompt", json=body) as response:
            answer = await response.json()
            if response.status != 200 or answer["node_errors"]:
                raise PromptError(json.dumps(answer, ensure_ascii=False))
        run = Run(answer["prompt_id"])
        async for message in socket:
            if message.type == aiohttp.WSMsgType.BINARY:
                run.notices += _parse_notices(message.data)
                continue
            if message.type != aiohttp.WSMsgType.TEXT:
                continue
            event = json.loads(message.data)
            if event["data"].get("prompt_id") != run.prompt_id:
                continue
            run.events.append(event)
            on_event(event)
            if event["type"] in {"execution_error", "execution_interrupted"}:
                raise PromptError(event["data"].get("exception_message", event["type"]).strip())
            if event["type"] == "execution_success":
                break
        else:
            raise PromptError("the server closed the connection")
        run.outputs = await _fetch_outputs(session, run.prompt_id)
    return run


def _parse_notices(message: bytes) -> list[tuple[str, str]]:
    # The message holds its kind, the length of the node id, the node id and the text.
    kind, length = struct.unpack_from(">II", message)
    node, text = message[8 : 8 + length], message[8 + length :]
    return [(node.decode(), text.decode())] if kind == TEXT_MESSAGE else []


async def _fetch_outputs(
    session: aiohttp.ClientSession, prompt_id: str
) -> dict[str, dict[str, Any]]:
    # Wait: the server writes its history only after it has sent the success message.
    for _ in range(200):
        async with session.get(f"/history/{prompt_id}") as response:
            history = await response.json()
        if prompt_id in history:
            return history[prompt_id]["outputs"]
        await asyncio.sleep(0.02)
    raise PromptError(f"the server's history does not hold prompt {prompt_id}")
