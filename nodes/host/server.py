"""ComfyUI's server: what the page asks of it, and who asks."""

from collections.abc import Callable
from pathlib import Path

import folder_paths
from aiohttp import web
from app.user_manager import UserManager
from comfy.cli_args import args
from server import PromptServer

from .cache import clear_cache_on_free


def add_routes(*adders: Callable[[web.RouteTableDef], None]) -> None:
    """Let each add its routes; does nothing where ComfyUI is used as a library, without a server."""
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
    """ComfyUI's id of who asks; None where it has one user only.

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
    """Return the folder of this name for who asks, and the user where ComfyUI has several.

    It is in the output folder, or in that of the user.

    Raises:
        UnknownUserError: If ComfyUI does not know the user.
    """
    user = require_user(request)
    if user is None:
        return Path(folder_paths.get_output_directory(), folder), None
    users: UserManager = PromptServer.instance.user_manager
    path = users.get_request_user_filepath(request, folder, create_dir=False)
    if path is None:  # a link, or an edited users.json, that leads out of ComfyUI's user folder
        raise UnknownUserError(request)
    return Path(path), user
