"""What people marked good or bad in the viewer, as rows of the data set."""

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from .pairs import encoded, row
from .photo import UnusableError, read_photo


class Mark(NamedTuple):
    """A verdict on a prompt; the pictures that it is about lie beside the list."""

    previous: Path
    zoomed: Path
    prompt: str
    good: bool
    factor: float
    user: str
    """Empty where ComfyUI has one user only."""


def read_marks(path: Path) -> tuple[list[Mark], dict[str, str]]:
    """The marks of a preferences.jsonl, and the lines that are none with the reason.

    Of a folder: the marks of every preferences.jsonl below it, such as those of all users.

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
                marks.append(_mark(json.loads(line), file.parent))
            except (ValueError, KeyError, TypeError) as error:
                skipped[f"{name}:{number}"] = f"no mark: {error or type(error).__name__}"
    return marks, skipped


def _mark(entry: dict, folder: Path) -> Mark:
    if not isinstance(entry["prompt"], str) or not isinstance(entry["good"], bool):
        raise ValueError("prompt must be a text and good true or false")
    user = entry.get("user", "")
    if not isinstance(user, str):
        raise ValueError("user must be a text")
    # Half of a character, which JSON may hold and no data set, is a ValueError.
    json.dumps(entry, ensure_ascii=False).encode()
    factor = entry["factor"]
    paths = [folder / entry[name] for name in ("previous", "zoomed")]
    if any(folder.resolve() not in path.resolve().parents for path in paths):
        raise ValueError("its pictures must lie beside the list")
    return Mark(*paths, entry["prompt"], entry["good"], max(map(float, factor)), user)


def mark_pairs(marks: list[Mark]) -> tuple[dict[str, dict], dict[str, str]]:
    """Name -> the row of each view that was judged, and what was left out with the reason.

    A user's last verdict on a prompt counts. Where users disagree, the verdict of most of them does.
    """
    views: dict[str, Mark] = {}
    verdicts: dict[str, dict[str, dict[str, bool]]] = {}
    for mark in marks:
        # Named by their content: the same pictures lie in the folder of each user who judged them.
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
            files = [encoded(read_photo(path)) for path in (mark.previous, mark.zoomed)]
        except UnusableError as error:
            skipped[name] = str(error)
            continue
        source = {"file": name, "backbone": "marks"}
        rows[name] = row(name, *files, mark.factor, source, good=good, bad=bad)
    return rows, skipped


def marks_agreement(trainer, rows) -> float | None:
    """How often the model finds a prompt that people marked good likelier than one marked bad.

    Over all pairs of the two, by the mean log-probability of a token; 0.5 is chance, None where one
    kind is missing. Every process computes all of it.
    """
    import torch

    model, processor = trainer.model, trainer.processing_class
    was_training = model.training
    model.eval()
    likelihoods: dict[bool, list[float]] = {True: [], False: []}
    for line in rows:
        for good, prompts in ((True, line["good"]), (False, line["bad"])):
            for prompt in prompts:
                with torch.no_grad():
                    likelihoods[good].append(_likelihood(model, processor, line, prompt))
    model.train(was_training)
    both = [(good, bad) for good in likelihoods[True] for bad in likelihoods[False]]
    if not both:
        return None
    return sum((good > bad) + 0.5 * (good == bad) for good, bad in both) / len(both)


def _likelihood(model, processor, line: dict, prompt: str) -> float:
    """Mean log-probability of a token of the prompt, as the answer to the two views."""
    asked = processor.apply_chat_template(_filled(line), add_generation_prompt=True, tokenize=False)
    inputs = processor(text=[asked], images=[line["images"]], return_tensors="pt")
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


def _filled(line: dict) -> list[dict]:
    """The conversation without the empty texts that a column of one type brings."""
    return [
        {
            "role": message["role"],
            "content": [
                {k: v for k, v in part.items() if v is not None} for part in message["content"]
            ],
        }
        for message in line["prompt"]
    ]
