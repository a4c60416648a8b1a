"""A real server that can be hurt: killed, started again, and made to fail inside."""

import contextlib
import json
import os
import signal
from pathlib import Path

import requests

from tools.host.server import serve

CUSTOM_NODES = Path(__file__).parent / "custom_nodes"


class FaultyServer:
    """With default flags, and the pack of ``custom_nodes/faults.py`` beside ours."""

    def __init__(self, folder, arguments=()):
        self.folder = folder
        config = folder / "faults.yaml"
        upscale = folder / "upscale_models"
        upscale.mkdir()
        paths = {"custom_nodes": str(CUSTOM_NODES), "upscale_models": str(upscale)}
        config.write_text(json.dumps({"faults": paths}), "utf-8")
        self.arguments = [*arguments, "--extra-model-paths-config", str(config)]
        self.stack = contextlib.ExitStack()
        self.start()

    def start(self):
        self.url = self.stack.enter_context(serve(folder=self.folder, arguments=self.arguments))
        self.pid = self.faults()["pid"]

    def close(self):
        self.stack.close()

    def kill(self):
        """As the system does it where memory ran out: it has no moment to tidy up."""
        os.kill(self.pid, signal.SIGKILL)

    def restart(self):
        self.close()
        self.start()

    def post(self, path, body=None):
        requests.post(f"{self.url}/{path}", json=body or {}).raise_for_status()

    def get(self, path):
        return requests.get(f"{self.url}/{path}").json()

    def faults(self):
        return self.get("faults")

    @contextlib.contextmanager
    def fault(self, place, do, call=1, times=1):
        self.post("faults", {"place": place, "do": do, "call": call, "times": times})
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # it may have been killed
                self.post("faults")
