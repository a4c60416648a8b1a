"""Read weight files of other projects safely, under the names that ComfyUI uses."""
