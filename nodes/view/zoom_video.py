from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from uuid import uuid4

import av
import comfy.utils
import folder_paths
import torch
from comfy.model_management import intermediate_device, throw_exception_if_processing_interrupted
from comfy_api.latest import InputImpl, io

from ...coz.render.zoom_video import EASINGS, Zoom, zoom_times
from ..host.graph import is_connected, running_prompt
from ..host.sockets import Chain

FRAMES_OUTPUT = 1

MOST_FRAMES = 8 * 10**9
"""Bytes of the frames output: more than this hardly anyone wants in memory at once."""

MOST_SIDE = 16384
"""Pixels along a side: more x264 does not take."""

QUALITY = {"crf": "16", "preset": "veryfast"}
"""Of x264: from 18 on down a loss can hardly be seen. Slower presets do not pay for a zoom: measured
on a photograph 42 dB and 1.1 MB a 9-second film with each, and up to twice the time with "medium".
"""

BT709, LIMITED = 1, 1
"""Colours and their range, as ITU-T H.273 numbers them."""


def film_size(frame: torch.Tensor, height: int, width: int) -> tuple[int, int]:
    """Height and width of the film, both even, of which 0 stands for what follows from the rest."""
    rows, columns = frame.shape[-2:]
    if not height:
        height = round(width * rows / columns) if width else rows
    if not width:
        width = round(height * columns / rows)
    height, width = (max(2, side // 2 * 2) for side in (height, width))
    if max(height, width) > MOST_SIDE:
        raise ValueError(
            f"the video would have {width} x {height} pixels, and H.264 has at most {MOST_SIDE} along a "
            f"side. The chain's frames are {columns} x {rows}: give width and height both"
        )
    return height, width


TORCH_THREADS = torch.get_num_threads()
"""Asked once: a thread that first used torch while a video was written has one."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Leave the other cores to x264: torch's threads and its own wait for each other without end.

    Measured on two cores: four times as long with torch's default.
    """
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(TORCH_THREADS)


def encode(frames: Iterable[torch.Tensor], height: int, width: int, fps: float) -> Path:
    """Write (1, 3, height, width) frames as an H.264 file into the host's temporary folder."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"coz_zoom_{uuid4().hex}.mp4"
    with ExitStack() as undo:
        undo.callback(path.unlink, missing_ok=True)
        with one_thread(), av.open(str(path), "w") as file:
            stream = file.add_stream("libx264", Fraction(round(fps * 1000), 1000), QUALITY)
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            # Named, as players guess them from the size else, and some guess wrong.
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = LIMITED
            for frame in frames:
                pixels = (frame[0].movedim(0, -1) * 255).round().byte().cpu().contiguous()
                picture = av.VideoFrame.from_ndarray(pixels.numpy(), format="rgb24")
                picture = picture.reformat(format="yuv420p", dst_colorspace="itu709")
                file.mux(stream.encode(picture))
            file.mux(stream.encode(None))
        undo.pop_all()
    return path


class CoZZoomVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZZoomVideo",
            display_name="CoZ Zoom Video",
            category="Chain-of-Zoom/view",
            description="Makes a video of a chain: one steady zoom from the whole picture into the deepest frame.",
            search_aliases=["video", "animation", "film", "ken burns"],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            inputs=[
                Chain.Input("chain", tooltip="From Chain Loop or CoZ Load Chain."),
                io.Float.Input(
                    "seconds_per_step",
                    default=2.0,
                    min=0.1,
                    max=60.0,
                    step=0.1,
                    tooltip="Seconds for one step of the chain. The way from the whole picture to the first frame "
                    "takes its share at the same speed.",
                ),
                io.Float.Input(
                    "fps", default=24.0, min=1.0, max=120.0, step=0.01, tooltip="Frames a second."
                ),
                io.Combo.Input(
                    "easing",
                    options=EASINGS,
                    default="none",
                    tooltip="none: the same speed all the way. smooth: starts and stops gently.",
                ),
                io.Float.Input(
                    "hold",
                    default=0.5,
                    min=0.0,
                    max=60.0,
                    step=0.1,
                    tooltip="Seconds of rest before and after the zoom.",
                ),
                io.Boolean.Input(
                    "reverse",
                    default=False,
                    tooltip="Zooms out: from the deepest frame to the whole picture.",
                ),
                *(
                    io.Int.Input(
                        side,
                        default=0,
                        min=0,
                        max=8192,
                        step=2,
                        tooltip=f"{side.capitalize()} of the video in pixels, even. 0: as the frames, or following from "
                        f"the {other}. Another shape than the frames' cuts them.",
                    )
                    for side, other in (("width", "height"), ("height", "width"))
                ),
            ],
            outputs=[
                io.Video.Output("video", tooltip="The video: connect it to Save Video."),
                io.Image.Output(
                    "frames",
                    tooltip="Its frames as one batch, made only if this is connected: they need much memory.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs):
        # What is connected is no input, so without this a cached run would have no frames to give.
        return is_connected(running_prompt(), cls.hidden.unique_id, FRAMES_OUTPUT)

    @classmethod
    def execute(
        cls, chain, seconds_per_step, fps, easing, hold, reverse, width, height
    ) -> io.NodeOutput:
        height, width = film_size(chain.frames[-1], height, width)
        zoom = Zoom(chain, height, width)
        times = zoom_times(zoom.steps * seconds_per_step, hold, fps, easing)
        if reverse:
            times.reverse()
        kept = None
        if is_connected(cls.hidden.dynprompt, cls.hidden.unique_id, FRAMES_OUTPUT):
            size = len(times) * height * width * 3 * 4
            if size > MOST_FRAMES:
                raise ValueError(
                    f"frames would take {size / 1e9:.1f} GB of memory: {len(times)} frames of {width} x {height}, and "
                    f"the most is {MOST_FRAMES / 1e9:.0f} GB. Lower seconds_per_step, fps, or width and height; or "
                    "disconnect frames and use video, which needs no more memory the longer it is"
                )
            kept = torch.empty(len(times), height, width, 3, device=intermediate_device())
        path = encode(cls.rendered(zoom, times, kept), height, width, fps)
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), kept)

    @classmethod
    def rendered(
        cls, zoom: Zoom, times: list[float], kept: torch.Tensor | None
    ) -> Iterator[torch.Tensor]:
        """The frames one by one, each also copied into ``kept`` where that is wanted."""
        bar = comfy.utils.ProgressBar(len(times))
        for k, frame in enumerate(zoom.frames(times)):
            throw_exception_if_processing_interrupted()
            bar.update_absolute(k + 1)
            if kept is not None:
                kept[k] = frame[0].movedim(0, -1)
            yield frame
