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

from ...coz.render.zoom_video import EASINGS, ZoomVideo, plan_zoom_positions
from ..host.graph import get_running_prompt, is_connected
from ..host.sockets import Chain

FRAMES_OUTPUT = 1

MAX_FRAMES_BYTES = 8 * 10**9
"""Maximum size of the frames output in memory."""

MAX_SIDE_PIXELS = 16384
"""Maximum side of a video for x264."""

X264_OPTIONS = {"crf": "16", "preset": "veryfast"}
"""At crf 18 and lower, a loss can hardly be seen. Slower presets have no benefit for a zoom: measured
on a photograph, each gives 42 dB and 1.1 MB for a 9-second video, and "medium" takes up to twice the
time.
"""

BT709, LIMITED_RANGE = 1, 1
"""Code points of ITU-T H.273 for the colors and their range."""


def choose_video_size(frame: torch.Tensor, height: int, width: int) -> tuple[int, int]:
    """Return height and width of the video, both even; 0 is replaced by the value that keeps the shape."""
    rows, columns = frame.shape[-2:]
    if not height:
        height = round(width * rows / columns) if width else rows
    if not width:
        width = round(height * columns / rows)
    height, width = (max(2, side // 2 * 2) for side in (height, width))
    if max(height, width) > MAX_SIDE_PIXELS:
        raise ValueError(
            f"the video would have {width} x {height} pixels, but H.264 allows at most {MAX_SIDE_PIXELS} "
            f"along a side. The chain's frames are {columns} x {rows}: give both width and height"
        )
    return height, width


TORCH_THREADS = torch.get_num_threads()
"""Read on import: while a video limits torch to one thread, torch returns 1 in new threads too."""

MAX_RENDER_BYTES = 10**9
"""Maximum memory of the frames that are rendered at once. Each takes about four times its own size."""


def count_render_threads(height: int, width: int) -> int:
    """Return how many frames of this size are rendered at once: on all cores, if memory allows."""
    return max(1, min(TORCH_THREADS, MAX_RENDER_BYTES // (4 * height * width * 3 * 4)))


@contextmanager
def limit_torch_to_one_thread() -> Iterator[None]:
    """Limit torch to one thread, because its threads and those of x264 block each other.

    With torch's default, writing took four times as long on two cores.
    """
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(TORCH_THREADS)


def write_video(frames: Iterable[torch.Tensor], height: int, width: int, fps: float) -> Path:
    """Write (1, 3, height, width) frames as an H.264 file into ComfyUI's temporary folder."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"coz_zoom_{uuid4().hex}.mp4"
    with ExitStack() as undo:
        undo.callback(path.unlink, missing_ok=True)
        with limit_torch_to_one_thread(), av.open(str(path), "w") as file:
            stream = file.add_stream("libx264", Fraction(round(fps * 1000), 1000), X264_OPTIONS)
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            # Without these, players guess the colors from the size, and some guess wrong.
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = LIMITED_RANGE
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
            description="Makes a video of a chain: one steady zoom from the image, cropped to the shape of "
            "the video, through all frames into the deepest frame.",
            search_aliases=["video", "animation", "film", "ken burns"],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            inputs=[
                Chain.Input("chain", tooltip="The chain of Chain Loop or CoZ Load Chain."),
                io.Float.Input(
                    "seconds_per_step",
                    default=2.0,
                    min=0.1,
                    max=60.0,
                    step=0.1,
                    tooltip="Seconds for one step of the chain. The video first zooms from the whole image "
                    "to the first frame at the same speed. For example, if the image is twice as wide as "
                    "the first frame, this takes half as long as a step of 4x.",
                ),
                io.Float.Input(
                    "fps", default=24.0, min=1.0, max=120.0, step=0.01, tooltip="Frames per second."
                ),
                io.Combo.Input(
                    "easing",
                    options=EASINGS,
                    default="none",
                    tooltip="none: the same speed all the way. smooth: starts and stops gently, and is "
                    "1.5 times as fast in the middle.",
                ),
                io.Float.Input(
                    "hold",
                    default=0.5,
                    min=0.0,
                    max=60.0,
                    step=0.1,
                    tooltip="Seconds for which the video stands still before the zoom and again after it.",
                ),
                io.Boolean.Input(
                    "reverse",
                    default=False,
                    tooltip="Zooms out, from the deepest frame to the whole image.",
                ),
                *(
                    io.Int.Input(
                        side,
                        default=0,
                        min=0,
                        max=8192,
                        step=2,
                        tooltip=f"{side.capitalize()} of the video in pixels, an even number. 0: the "
                        f"{side} of the frames, or computed from {other} if that is given. The frames "
                        "are cropped if the video has another shape.",
                    )
                    for side, other in (("width", "height"), ("height", "width"))
                ),
            ],
            outputs=[
                io.Video.Output("video", tooltip="The video (H.264), for Save Video."),
                io.Image.Output(
                    "frames",
                    tooltip="All frames of the video as one batch. They need much memory and are made only "
                    "if this output is connected.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs):
        # A connection of an output is not an input, so without this a cached run would have no frames.
        return is_connected(get_running_prompt(), cls.hidden.unique_id, FRAMES_OUTPUT)

    @classmethod
    def execute(
        cls, chain, seconds_per_step, fps, easing, hold, reverse, width, height
    ) -> io.NodeOutput:
        height, width = choose_video_size(chain.frames[-1], height, width)
        zoom = ZoomVideo(chain, height, width)
        positions = plan_zoom_positions(zoom.steps * seconds_per_step, hold, fps, easing)
        if reverse:
            positions.reverse()
        kept = None
        if is_connected(cls.hidden.dynprompt, cls.hidden.unique_id, FRAMES_OUTPUT):
            size = len(positions) * height * width * 3 * 4
            if size > MAX_FRAMES_BYTES:
                raise ValueError(
                    f"frames would take {size / 1e9:.1f} GB of memory: {len(positions)} frames of {width} x "
                    f"{height}. The maximum is {MAX_FRAMES_BYTES / 1e9:.0f} GB. Lower seconds_per_step, fps, "
                    "or width and height; or disconnect frames and use video, whose memory does not grow "
                    "with its length"
                )
            kept = torch.empty(len(positions), height, width, 3, device=intermediate_device())
        path = write_video(cls.render(zoom, positions, kept), height, width, fps)
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), kept)

    @classmethod
    def render(
        cls, zoom: ZoomVideo, positions: list[float], kept: torch.Tensor | None
    ) -> Iterator[torch.Tensor]:
        """Yield the frames one by one; also copy each into ``kept``, if given."""
        bar = comfy.utils.ProgressBar(len(positions))
        threads = count_render_threads(zoom.height, zoom.width)
        for k, frame in enumerate(zoom.render_frames(positions, threads)):
            throw_exception_if_processing_interrupted()
            bar.update_absolute(k + 1)
            if kept is not None:
                kept[k] = frame[0].movedim(0, -1)
            yield frame
