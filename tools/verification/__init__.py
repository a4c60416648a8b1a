"""The parts of tools/verify.py: the weight files, ComfyUI, the SR step and the prompt extractor's tokens."""
