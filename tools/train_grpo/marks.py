"""Make rows of the data set from the prompts that people marked good or bad in the viewer."""

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from .pairs import encode_view, make_row
from .photo import UnusableError, read_photo


class Mark(NamedTuple):
    """A verdict on a prompt, with the files of its two views, in the folder of preferences.jsonl."""

    previous: Path
    zoomed: Path
    prompt: str
    good: bool
    factor: float
    user: str
    """Empty if ComfyUI has only one user."""


def read_marks(path: Path) -> tuple[list[Mark], dict[str, str]]:
    """Read the marks of a preferences.jsonl, or of every preferences.jsonl below a folder.

    Also return the invalid lines with the reason.

    Raises:
        ValueError: If a file cannot be read, or the folder holds none.
    """
    files = sorted(path.rglob("preferences.jsonl")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path} holds no preferences.jsonl")
    marks, skipped = [], {}
    for file in files:
        try:
            lines = file.read_bytes().split(b"\n")
        except OSError as error:
            raise ValueError(f"{file} cannot be read: {error.strerror}") from error
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                marks.append(_parse_mark(json.loads(line), file.parent))
            except (ValueError, KeyError, TypeError) as error:
                skipped[f"{name}:{number}"] = f"invalid mark: {error or type(error).__name__}"
    return marks, skipped


def _parse_mark(entry: dict, folder: Path) -> Mark:
    if not isinstance(entry["prompt"], str) or not isinstance(entry["good"], bool):
        raise ValueError("prompt must be a text and good true or false")
    user = entry.get("user", "")
    if not isinstance(user, str):
        raise ValueError("user must be a text")
    # A lone surrogate, which JSON allows but a data set does not, raises a ValueError here.
    json.dumps(entry, ensure_ascii=False).encode()
    factor = entry["factor"]
    paths = [folder / entry[name] for name in ("previous", "zoomed")]
    if any(folder.resolve() not in path.resolve().parents for path in paths):
        raise ValueError("its images must be in the folder of preferences.jsonl or below")
    return Mark(*paths, entry["prompt"], entry["good"], max(map(float, factor)), user)


def make_mark_pairs(marks: list[Mark]) -> tuple[dict[str, dict], dict[str, str]]:
    """Return name -> row of each judged pair of views, and the skipped ones with the reason.

    The last verdict of each user on a prompt counts. If users disagree, the majority counts.
    """
    views: dict[str, Mark] = {}
    verdicts: dict[str, dict[str, dict[str, bool]]] = {}
    for mark in marks:
        # File names are hashes: each user who judged a pair has a copy of the same views.
        name = f"marks/{mark.previous.stem}-{mark.zoomed.stem}"
        views[name] = mark
        verdicts.setdefault(name, {}).setdefault(mark.prompt, {})[mark.user] = mark.good
    rows, skipped = {}, {}
    for name, mark in views.items():
        good, bad = [], []
        for prompt, of_users in verdicts[name].items():
            count = Counter(of_users.values())
            if count[True] == count[False]:
                skipped[f"{name}: {prompt!r}"] = "as many users marked it good as bad"
            else:
                (good if count[True] > count[False] else bad).append(prompt)
        if not good and not bad:
            continue
        try:
            files = [encode_view(read_photo(path)) for path in (mark.previous, mark.zoomed)]
        except UnusableError as error:
            skipped[name] = str(error)
            continue
        source = {"file": name, "backbone": "marks"}
        rows[name] = make_row(name, *files, mark.factor, source, good=good, bad=bad)
    return rows, skipped


def measure_marks_agreement(trainer, rows) -> float | None:
    """Return how often the model prefers a prompt that people marked good to one marked bad.

    It compares all pairs of a good and a bad prompt by their mean log-probability per token. 0.5 is
    chance. None means that one kind is missing. Every process computes the whole value.
    """
    import torch

    model, processor = trainer.model, trainer.processing_class
    was_training = model.training
    model.eval()
    likelihoods: dict[bool, list[float]] = {True: [], False: []}
    for row in rows:
        for good, prompts in ((True, row["good"]), (False, row["bad"])):
            for prompt in prompts:
                with torch.no_grad():
                    likelihoods[good].append(_measure_likelihood(model, processor, row, prompt))
    model.train(was_training)
    both = [(good, bad) for good in likelihoods[True] for bad in likelihoods[False]]
    if not both:
        return None
    return sum((good > bad) + 0.5 * (good == bad) for good, bad in both) / len(both)


def _measure_likelihood(model, processor, row: dict, prompt: str) -> float:
    """Return the prompt's mean log-probability per token, as the answer to the two views."""
    asked = processor.apply_chat_template(
        _drop_empty(row), add_generation_prompt=True, tokenize=False
    )
    inputs = processor(text=[asked], images=[row["images"]], return_tensors="pt")
    answer = processor.tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
    inputs = {name: value.to(model.device) for name, value in inputs.items()}
    answer = answer.to(model.device)
    import torch

    length = inputs["input_ids"].shape[1]
    whole = torch.cat([inputs["input_ids"], answer], 1)
    for name in ("attention_mask", "mm_token_type_ids", "token_type_ids"):
        if name in inputs:
            more = torch.full_like(answer, int(name == "attention_mask"))
            inputs[name] = torch.cat([inputs[name], more], 1)
    logits = model(**(inputs | {"input_ids": whole})).logits[0, length - 1 : -1].float()
    return logits.log_softmax(-1).gather(-1, answer[0, :, None]).mean().item()


def _drop_empty(row: dict) -> list[dict]:
    """Return the conversation without the None fields that `datasets` adds to give all parts the same keys."""
    return [
        {
            "role": message["role"],
            "content": [
                {k: v for k, v in part.items() if v is not None} for part in message["content"]
            ],
        }
        for message in row["prompt"]
    ]
