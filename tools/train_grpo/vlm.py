"""Load a vision-language model of transformers into this process."""

import os
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

Question = Sequence[Image.Image | str]
"""The images and texts of a message, in their order."""

Ask = Callable[[Sequence[Question]], list[tuple[str, bool]]]


def load_vlm(model: str, instruction: str, max_tokens: int) -> Ask:
    """Load a model onto the GPU of this process, if it has one.

    Args:
        model: A name on Hugging Face or a folder.
        instruction: The system prompt of each question.
        max_tokens: Maximum tokens of an answer.

    Returns:
        A function that answers questions. For each it returns the text, and whether the maximum cut it off.

    Raises:
        ValueError: If the model cannot be loaded. The message is the reason.
    """
    try:
        processor = AutoProcessor.from_pretrained(model, padding_side="left")
        network = AutoModelForImageTextToText.from_pretrained(model, dtype="auto").eval()
    except (OSError, ValueError) as error:
        raise ValueError(str(error).strip().partition("\n")[0]) from error
    if torch.cuda.is_available():
        network = network.to(f"cuda:{os.environ.get('LOCAL_RANK', 0)}")

    @torch.inference_mode()
    def ask(questions: Sequence[Question]) -> list[tuple[str, bool]]:
        inputs = processor.apply_chat_template(
            [
                [_make_message("system", [instruction]), _make_message("user", question)]
                for question in questions
            ],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        ).to(network.device)
        answers = network.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
        new = answers[:, inputs["input_ids"].shape[1] :]
        # Only an answer that ended is followed by an end token or by padding.
        end = network.generation_config.eos_token_id  # one, several or none
        ends = torch.as_tensor(-1 if end is None else end, device=new.device)
        cut = ~torch.isin(new, ends).any(1) & (new.shape[1] == max_tokens)
        texts = processor.batch_decode(new, skip_special_tokens=True)
        return list(zip(texts, cut.tolist(), strict=True))

    return ask


def _make_message(role: str, parts: Question) -> dict:
    kinds = ("text" if isinstance(part, str) else "image" for part in parts)
    content = [{"type": kind, kind: part} for kind, part in zip(kinds, parts, strict=True)]
    return {"role": role, "content": content}
