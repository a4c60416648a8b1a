"""Measure how many degraded crops two loader processes make for the training of SR LoRAs.

Limit: 2 crops of 512 pixels a second, about as many as the training uses on a fast GPU.

It also prints the CPU time per crop. On a busy machine judge by that, because fewer crops are made a second.
It does not run on Windows.
"""

import os
import tempfile
import time
from pathlib import Path

from skimage import data as samples
from skimage.io import imsave
from torch.utils.data import DataLoader

from tools.train_sr.crops import CropOptions
from tools.train_sr.dataset import CropDataset
from tools.train_sr.prepare import PrepareOptions, prepare

MIN_CROPS_PER_SECOND = 2
PROCESSES = 2
EPOCHS = 32


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        images, out = Path(folder, "images"), Path(folder, "out")
        images.mkdir()
        for name in ("astronaut", "retina"):
            imsave(images / f"{name}.png", getattr(samples, name)())
        prepare(images, out, PrepareOptions(CropOptions(), held_out=0))
        dataset = CropDataset(out, seed=0, degradation="real-esrgan")
        started, crops = time.perf_counter(), 0
        for epoch in range(EPOCHS):
            dataset.set_epoch(epoch)
            crops += len(dataset)
            for _ in DataLoader(dataset, num_workers=PROCESSES):
                pass
        seconds = time.perf_counter() - started
    used = os.times()
    cpu_seconds = used.children_user + used.children_system
    rate = crops / seconds
    print(
        f"crops: {rate:.1f} crops a second by {PROCESSES} processes (limit: {MIN_CROPS_PER_SECOND}), "
        f"{cpu_seconds / crops:.3f} s of a core for each, at a load of {os.getloadavg()[0]:.1f}"
    )
    if rate < MIN_CROPS_PER_SECOND:
        raise SystemExit("crops: below the limit")


if __name__ == "__main__":
    main()
