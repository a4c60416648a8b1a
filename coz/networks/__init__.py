"""Small networks that ComfyUI does not have."""
