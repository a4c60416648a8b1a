"""Every use of ComfyUI beyond its public API, comfy_api.latest."""
