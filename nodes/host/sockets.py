"""The pack's own types of sockets."""

from comfy_api.latest import io

Shown = io.Custom("COZ_SHOWN")

Chain = io.Custom("COZ_CHAIN")
