"""The pack's own types of sockets."""

from comfy_api.latest import io

PreviewFiles = io.Custom("COZ_SHOWN")

Chain = io.Custom("COZ_CHAIN")
