"""The parts of tools/verify.py: the weight files, ComfyUI, the SR step, tokens and tags."""
