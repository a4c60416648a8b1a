"""Save a chain as a folder below the output folder, and load it again."""

import json
import os
from pathlib import Path, PurePath

import comfy.model_management
import comfy.utils
import folder_paths
from comfy.cli_args import args
from comfy_api.latest import io, ui

from ...coz.chain.folder import (
    RECORD_NAME,
    fingerprint_files,
    list_saved_chains,
    read_record_and_images,
    require_valid_prefix,
    write_chain,
)
from ...coz.chain.zoom_chain import ZoomChain
from ...coz.text.step_prompts import join_texts
from ..host.sockets import Chain


def get_output_folder() -> Path:
    return Path(folder_paths.get_output_directory())


def is_below_output(path: Path) -> bool:
    return path.resolve().is_relative_to(get_output_folder().resolve())


def check_prefix(filename_prefix: str) -> str:
    """Return ``filename_prefix`` with slashes; refuse one that leads out of the output folder."""
    prefix = require_valid_prefix(filename_prefix)
    if not is_below_output(get_output_folder() / prefix):
        raise ValueError(
            f"filename_prefix is {filename_prefix!r}, but a link there leads out of the output folder"
        )
    return prefix


def find_chain_folder(name: str | None) -> Path:
    """Return the folder of a saved chain, given its path below the output folder."""
    if not name:
        raise ValueError(
            "no chain is chosen: folder is not set. Run CoZ Save Chain once, then choose its chain "
            "in folder; press R to list chains that were copied into the output folder"
        )
    folder = get_output_folder() / str(name)
    if "\0" in str(name) or not is_below_output(folder):
        raise ValueError(f"{name!r} is not below the output folder: choose a chain of the list")
    if not os.path.isfile(
        folder / RECORD_NAME
    ):  # Path.is_file would raise an error for a very long name
        raise ValueError(
            f"there is no saved chain {name!r} in {get_output_folder()}. Press R and choose one of the "
            f"list, or put its folder with {RECORD_NAME} there"
        )
    return folder


class CoZSaveChain(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZSaveChain",
            display_name="CoZ Save Chain",
            category="Chain-of-Zoom/view",
            description="Saves a chain in a folder inside the output folder: every frame as a 16-bit PNG, "
            "and all settings in chain.json. Load it with CoZ Load Chain to view the zoom or to continue "
            "it in Chain Loop.",
            search_aliases=["save image", "export", "16-bit PNG", "resume"],
            is_output_node=True,
            inputs=[
                Chain.Input("chain", tooltip="The chain of Chain Loop or CoZ Load Chain."),
                io.String.Input(
                    "filename_prefix",
                    default="chain-of-zoom/chain",
                    tooltip="Name of the folder. A number is added, so no earlier folder is replaced. A "
                    "slash makes subfolders. As in Save Image, names between percent signs are replaced, "
                    "such as parts of the date or the value of a widget.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix=None):  # None if linked: execute checks it
        try:
            return filename_prefix is None or bool(check_prefix(filename_prefix))
        except ValueError as error:
            return str(error)

    @classmethod
    def execute(cls, chain, filename_prefix) -> io.NodeOutput:
        filename_prefix = check_prefix(filename_prefix)
        height, width = chain.frames[-1].shape[-2:]
        bar = comfy.utils.ProgressBar(len(chain.frames))
        try:
            parent, name, number, subfolder, _ = folder_paths.get_save_image_path(
                filename_prefix, str(get_output_folder()), width, height
            )
            texts = cls.make_metadata()
            folder = write_chain(chain, Path(parent), name, number, texts, bar.update_absolute)
        except OSError as error:
            raise ValueError(
                f"the chain could not be saved as {get_output_folder() / filename_prefix}: "
                f"{error.strerror or error}. Nothing was left there. Make room, or give another "
                "filename_prefix"
            ) from error
        place = PurePath(subfolder, folder.name).as_posix()
        names = [f"scale_{i}.png" for i in range(chain.steps + 1)]
        shown = [ui.SavedResult(name, place, io.FolderType.output) for name in names]
        return io.NodeOutput(ui=ui.SavedImages(shown))

    @classmethod
    def make_metadata(cls) -> dict[str, str]:
        """Return the workflow as Save Image writes it: the page opens it when the image is dropped there."""
        if args.disable_metadata or not cls.hidden:
            return {}
        texts = {"prompt": cls.hidden.prompt, **(cls.hidden.extra_pnginfo or {})}
        return {key: json.dumps(value) for key, value in texts.items() if value}


class CoZLoadChain(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZLoadChain",
            display_name="CoZ Load Chain",
            category="Chain-of-Zoom/load",
            description="Loads a chain that CoZ Save Chain saved. You can view it, make a video or a strip "
            "of it, or continue it in Chain Loop without computing its steps again.",
            search_aliases=["load image", "open", "continue", "resume"],
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=list_saved_chains(get_output_folder()),
                    tooltip="A folder inside the output folder that contains a chain.json. The newest is "
                    "first. A chain from CoZ Save Chain is in the list at once; press R to find others.",
                    optional=True,  # an empty list gets find_chain_folder's error, not ComfyUI's
                )
            ],
            outputs=[
                Chain.Output(
                    "chain",
                    tooltip="The chain. Connect it to Chain Loop, or to the nodes that show or check a "
                    "chain.",
                ),
                io.Image.Output(
                    "IMAGE",
                    display_name="image",
                    tooltip="The source: the whole image that the chain started from.",
                ),
                io.Image.Output(
                    "scales",
                    tooltip="All frames, from the first to the deepest, as one batch of images.",
                ),
                io.String.Output(
                    "prompts",
                    tooltip="The text of each step, one line per step; - means no text.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, folder=None):  # absent if the page found no chain to choose
        """Replace ComfyUI's check of the list: a chain may be newer than the page's list."""
        try:
            return folder is None or bool(find_chain_folder(folder))
        except ValueError as error:
            return str(error)

    @classmethod
    def fingerprint_inputs(cls, folder=None):
        return folder and fingerprint_files(find_chain_folder(folder))

    @classmethod
    def execute(cls, folder=None) -> io.NodeOutput:
        device = comfy.model_management.intermediate_device()
        record, *images = read_record_and_images(find_chain_folder(folder))
        source, frames = (image.to(device) for image in images)
        chain = ZoomChain.from_json(record, (source, *frames.unsqueeze(1)))
        # to_image is not needed: the values of read_record_and_images are in [0, 1].
        batches = (image.movedim(1, -1) for image in (source, frames))
        return io.NodeOutput(chain, *batches, join_texts(chain.prompts))
