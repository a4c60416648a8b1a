"""Add routes to ComfyUI's server, and find the user of a request."""

from collections.abc import Callable
from pathlib import Path

import folder_paths
from aiohttp import web
from app.user_manager import UserManager
from comfy.cli_args import args
from server import PromptServer

from .cache import clear_cache_on_free


def set_up_server(*adders: Callable[[web.RouteTableDef], None]) -> None:
    """Let each of ``adders`` add its routes, and clear the cache when ComfyUI is asked to free memory.

    Do nothing if ComfyUI is used as a library, without a server.
    """
    server: PromptServer | None = getattr(PromptServer, "instance", None)
    if server is not None:
        server.app.middlewares.append(clear_cache_on_free)
        for add in adders:
            add(server.routes)


class UnknownUserError(Exception):
    def __init__(self, request: web.Request):
        name = request.headers.get("comfy-user", "")
        super().__init__(
            f"ComfyUI knows no user {name!r}: reload the page and choose one of its users"
        )


def require_user(request: web.Request) -> str | None:
    """Return ComfyUI's id of the user who sent the request; None without --multi-user.

    Raises:
        UnknownUserError: If ComfyUI does not know the user.
    """
    if not args.multi_user:
        return None
    users: UserManager = PromptServer.instance.user_manager
    try:
        return users.get_request_user_id(request)
    except KeyError as error:
        raise UnknownUserError(request) from error


def find_user_folder(request: web.Request, folder: str) -> tuple[Path, str | None]:
    """Return the folder of this name for the user of a request, and the id of the user.

    With --multi-user it is in the user's own folder; otherwise in the output folder, and the id is None.

    Raises:
        UnknownUserError: If ComfyUI does not know the user.
    """
    user = require_user(request)
    if user is None:
        return Path(folder_paths.get_output_directory(), folder), None
    users: UserManager = PromptServer.instance.user_manager
    path = users.get_request_user_filepath(request, folder, create_dir=False)
    if path is None:  # a link or an edited users.json leads out of ComfyUI's user folder
        raise UnknownUserError(request)
    return Path(path), user
