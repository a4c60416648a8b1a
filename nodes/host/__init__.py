"""All code that uses ComfyUI beyond its public API, comfy_api.latest."""
