"""A custom node pack for the tests alone: one call inside the server fails, or waits, as asked.

POST /faults {"place", "do", "call", "times"}   arms one fault, in the place of the last
POST /faults {}                                 disarms it
GET /faults                                     the server's process, and how often the place was called
"""

import os
import threading
import time

import comfy.clip_model
import comfy.ldm.modules.diffusionmodules.model
import comfy.model_base
import comfy.model_management
import comfy.text_encoders.llama
import comfy.text_encoders.qwen_vl
import spandrel
import torch
from aiohttp import web
from comfy_execution.utils import get_executing_context
from server import PromptServer

import nodes

NODE_CLASS_MAPPINGS = {}

LIMIT = 120
"""Seconds that a call waits at most: a test that fails must not hang."""


def node(class_type):
    return lambda: (nodes.NODE_CLASS_MAPPINGS[class_type], "execute")


PLACES = {
    "first frame": node("CoZFitImage"),
    "colour": node("CoZColorFix"),
    "check": node("CoZChainCheck"),
    "collect": node("CoZChainCollect"),
    "save": node("CoZSaveChain"),
    "written file": lambda: (os, "fsync"),
    "upscale model": lambda: (spandrel.ImageModelDescriptor, "__call__"),
    "VLM's eyes": lambda: (comfy.text_encoders.qwen_vl.Qwen2VLVisionTransformer, "forward"),
    "VLM": lambda: (comfy.text_encoders.llama.Llama2_, "forward"),
    "text encoder": lambda: (comfy.clip_model.CLIPTextModel, "forward"),
    "VAE encoder": lambda: (comfy.ldm.modules.diffusionmodules.model.Encoder, "forward"),
    "network": lambda: (comfy.model_base.BaseModel, "apply_model"),
    "VAE decoder": lambda: (comfy.ldm.modules.diffusionmodules.model.Decoder, "forward"),
}


class Fault:
    def __init__(self, place, do, call=1, times=1):
        self.do, self.hurt = do, range(call, call + times)
        self.calls = 0
        self.over = threading.Event()
        self.owner, self.name = PLACES[place]()
        self.original = vars(self.owner)[self.name]
        setattr(self.owner, self.name, self.wrapped())

    def wrapped(self):
        if isinstance(self.original, classmethod):
            inner = self.original.__func__

            @classmethod
            def wrapped(cls, *args, **kwargs):
                self.strike()
                return inner(cls, *args, **kwargs)
        else:

            def wrapped(*args, **kwargs):
                self.strike()
                return self.original(*args, **kwargs)

        return wrapped

    def strike(self):
        self.calls += 1
        if self.calls not in self.hurt:
            return
        if self.do == "out of memory":
            raise torch.OutOfMemoryError("Allocation on device (injected)")
        # The test learns that the call is reached, and does what it is about.
        place = get_executing_context()
        server = PromptServer.instance
        reached = {"prompt_id": place.prompt_id, "node": place.node_id}
        server.send_sync("reached", reached, server.client_id)
        until = time.monotonic() + LIMIT
        while not self.over.wait(0.01) and not comfy.model_management.processing_interrupted():
            assert time.monotonic() < until, "nobody ended this wait"

    def disarm(self):
        setattr(self.owner, self.name, self.original)
        self.over.set()


armed = []


@PromptServer.instance.routes.post("/faults")
async def arm(request):
    while armed:
        armed.pop().disarm()
    wanted = await request.json()
    if wanted:
        armed.append(Fault(**wanted))
    return web.json_response({})


@PromptServer.instance.routes.get("/faults")
async def count(request):
    return web.json_response({"pid": os.getpid(), "calls": [fault.calls for fault in armed]})
