import pytest
import torch
from safetensors.torch import save_file

from tools.server import serve


@pytest.fixture(scope="session")
def node(pack):
    """Node class by id, from the host's own registry."""
    import nodes

    return nodes.NODE_CLASS_MAPPINGS.__getitem__


@pytest.fixture(scope="session")
def upscale_model(pack, tmp_path_factory):
    """A tiny random network with the given factor, loaded by the host's own loader."""
    import folder_paths
    from comfy_extras.nodes_upscale_model import UpscaleModelLoader
    from spandrel.architectures.Compact import Compact

    folder = tmp_path_factory.mktemp("upscale_models")
    folder_paths.add_model_folder_path("upscale_models", str(folder))

    def load(factor):
        torch.manual_seed(0)
        network = Compact(num_feat=8, num_conv=2, upscale=factor)
        save_file(network.state_dict(), folder / f"tiny_x{factor}.safetensors")
        return UpscaleModelLoader.execute(f"tiny_x{factor}.safetensors")[0]

    return load


@pytest.fixture(scope="session")
def server():
    """URL of a real server with default flags."""
    with serve() as url:
        yield url
