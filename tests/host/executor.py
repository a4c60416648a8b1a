"""The host's real executor in this process, with any of its caches."""

import asyncio

import pytest

CACHES = ["CLASSIC", "LRU", "RAM_PRESSURE", "NONE"]


def validate(prompt):
    """Whether the host takes the prompt into its queue, and what it says of the nodes."""
    import execution

    is_valid, _, _, errors = asyncio.run(execution.validate_prompt("p", prompt, None))
    return is_valid, errors


class Server:
    """The executor's own view of a server: it records what would be sent."""

    client_id = "test"
    last_node_id = last_prompt_id = None
    sockets_metadata: dict = {}  # noqa: RUF012

    def __init__(self):
        self.sent = []

    def send_sync(self, event, data, sid=None):
        self.sent.append((event, data))

    def send_progress_text(self, text, node_id, sid=None):
        text.encode()  # which the real one sends
        self.sent.append(("progress_text", (node_id, text)))


class Executor:
    def __init__(self, cache, is_library=False):
        """``is_library``: without ``PromptServer.instance``, as where ComfyUI is used as a library."""
        import execution

        self.cache = cache
        self.is_library = is_library
        self.server = Server()
        self.executor = execution.PromptExecutor(
            self.server,
            cache_type=execution.CacheType[cache],
            cache_args={"lru": 1000, "ram": 0.1, "ram_inactive": 0.1},
        )
        self.count = 0

    def execute(self, prompt, prompt_id, extra, outputs):
        from comfy.cli_args import args
        from server import PromptServer

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(args, "cache_none", self.cache == "NONE")  # as the command line says
            if not self.is_library:
                patch.setattr(PromptServer, "instance", self.server, raising=False)
            self.executor.execute(prompt, prompt_id, extra, outputs)

    def run(self, prompt, *outputs):
        """Ids of the nodes that ran for the outputs, or else for the node "scales"."""
        self.count += 1
        self.server.sent.clear()
        self.execute(prompt, f"p{self.count}", {"client_id": "test"}, outputs or ["scales"])
        errors = [data for event, data in self.server.sent if event == "execution_error"]
        if errors:
            raise RuntimeError(errors[0]["exception_message"])
        return [
            data["node"]
            for event, data in self.server.sent
            if event == "executing" and data["node"]
        ]

    @property
    def told(self):
        """The lines that were shown, on whatever node."""
        return [text for _, text in self.notices]

    @property
    def notices(self):
        """(node, text) of each line that was shown on a node."""
        return [data for event, data in self.server.sent if event == "progress_text"]

    def ui(self, node):
        return next(
            data["output"]
            for event, data in self.server.sent
            if event == "executed" and data["node"].endswith(node)
        )
