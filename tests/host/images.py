"""Images that several tests of nodes begin with."""

import torch


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))
