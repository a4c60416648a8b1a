"""The pack's own socket types."""

from comfy_api.latest import io

PreviewFiles = io.Custom("COZ_SHOWN")

Chain = io.Custom("COZ_CHAIN")

TaggerSocket = io.Custom("COZ_TAGGER")
