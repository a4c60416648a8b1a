import comfy.utils
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy_api.latest import io

from ...coz.networks.ram_tagger import read_tag_list
from ...coz.text.step_prompts import join_prompt, join_texts
from ...coz.text.tags import find_unknown_tags, join_tags, split_tags
from ..host.images import to_bchw
from ..host.messages import finish_with_notices, give_notice, give_notice_once
from ..host.options import require_range
from ..host.sockets import TaggerSocket
from ..host.tagger import Tagger

MAX_THRESHOLD_SHIFT = 1


def make_exclude_input() -> io.Input:
    return io.String.Input(
        "exclude",
        default="",
        placeholder="tags to leave out, such as: blur, floor",
        tooltip="Tags to leave out, separated by commas, in upper or lower case.",
    )


class CoZTagPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZTagPrompt",
            display_name="CoZ Tag Prompt (RAM/DAPE)",
            category="Chain-of-Zoom/step",
            description="Finds which of 4585 tags fit an image, and writes them as the prompt for the next "
            "step of a zoom. It takes seconds on a CPU; a vision-language model takes minutes there. The "
            "node shows the text.",
            search_aliases=["tags", "RAM", "recognize anything", "DAPE", "interrogate", "caption"],
            inputs=[
                TaggerSocket.Input("tagger", tooltip="The model, from CoZ Load Tagger."),
                io.Image.Input(
                    "image",
                    tooltip="The view to describe: the output zoomed of Crop-Center-Zoom. It may have any "
                    "size. A batch gives one line for each image.",
                ),
                io.Float.Input(
                    "threshold_shift",
                    default=0.0,
                    min=-MAX_THRESHOLD_SHIFT,
                    max=MAX_THRESHOLD_SHIFT,
                    step=0.01,
                    advanced=True,
                    tooltip="Number that is added to the threshold of every tag. A tag is found if its "
                    "probability is above its threshold, which is between 0.45 and 1. A negative number "
                    "gives more tags.",
                ),
                make_exclude_input(),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Your own text, added at the end of each line. It may be empty.",
                ),
            ],
            outputs=[
                io.String.Output(
                    "STRING",
                    display_name="prompt",
                    tooltip="The tags, separated by commas, and then your own prompt. Connect this output "
                    "to CoZ Encode Prompt. A batch gives one line for each image; - means no text.",
                )
            ],
        )

    @classmethod
    def execute(cls, tagger, image, threshold_shift=0.0, exclude="", prompt="") -> io.NodeOutput:
        if not isinstance(tagger, Tagger):
            raise ValueError(
                f"tagger must be a tagger from CoZ Load Tagger, got {type(tagger).__name__}"
            )
        require_range("threshold_shift", threshold_shift, -MAX_THRESHOLD_SHIFT, MAX_THRESHOLD_SHIFT)
        images = to_bchw(image).split(1)
        names, thresholds = read_tag_list()
        excluded = split_tags(exclude)
        if unknown := find_unknown_tags(excluded, names):
            give_notice_once(f"exclude names tags that RAM does not have: {', '.join(unknown)}")
        found = []
        bar = comfy.utils.ProgressBar(len(images))
        for i, single in enumerate(images, 1):
            throw_exception_if_processing_interrupted()
            logits = tagger.rate(single)[0]
            if not logits.isfinite().all():
                raise ValueError(
                    "tagger made values that are NaN or infinite. Its file may be damaged: download it "
                    "again, or set dape_strength of CoZ Load Tagger to 1"
                )
            found.append(join_tags(logits, names, thresholds + threshold_shift, excluded))
            bar.update_absolute(i)
        if not all(found):
            where = "" if len(found) == 1 else f" in {found.count('')} of {len(found)} images"
            give_notice(
                f"No tag was found{where}: all tags are below their thresholds or excluded. Only prompt is "
                "used as the text"
            )
        texts = [join_prompt(tags, prompt) for tags in found]
        text = texts[0] if len(texts) == 1 else join_texts(texts)
        return io.NodeOutput(text, ui=finish_with_notices("\n".join(filter(None, found))))
