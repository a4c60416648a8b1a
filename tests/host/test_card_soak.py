"""Many prompts on the simulated card leave nothing behind, also where memory runs out."""

from contextlib import contextmanager
from math import inf

import pytest
import torch

from tests.support.host_with_card import HostWithCard
from tests.support.small_models import small_sd3, small_vae

from .templates import PAPER, START, TEMPLATES, WHOLE, read_template


@pytest.mark.parametrize(
    ("names", "rounds"),
    [((START, PAPER, WHOLE), 3), pytest.param(TEMPLATES, 25, marks=pytest.mark.long)],
    ids=["3 templates", "all"],
)
def test_prompts_leave_nothing_behind(
    on_card, nodes_of, monkeypatch, record_property, names, rounds
):
    each = len(names)
    monkeypatch.setattr(nodes_of("host.cache"), "MAX_KEPT_RUNS", each)  # so that a round fills it
    templates = on_card()
    levels = []
    for number in range(each * rounds):
        templates.memory.restart_peak()
        templates.run(read_template(names[number % each], number))
        levels.append(templates.count() | {"peak": templates.memory.peak})
    record_property("levels", str(levels[-each:]))
    # The first round makes what stays.
    assert levels[2 * each :] == levels[each:-each]
    assert max(level["peak"] for level in levels) < 2**29


OUT_OF_MEMORY = "Allocation on device (injected)\n"

TILED = 1e-4
"""Of 1: what smaller tiles may round otherwise."""

NOT_MEASURED = 0.25 / 255
"""Of 1: what the pixels beyond a model's reach may change. Where memory runs out while the reach is
measured, the model sees more of them."""


@contextmanager
def out_of_memory(memory, at):
    """The allocation of that number fails. Gives their sizes."""
    take, sizes = memory.take, []

    def count(size):
        if size > 0:
            sizes.append(size)
            if len(sizes) == at:
                raise torch.OutOfMemoryError(OUT_OF_MEMORY.strip())
        take(size)

    memory.take = count
    try:
        yield sizes
    finally:
        del memory.take


@pytest.mark.parametrize("way", ["encode", "decode"])
@pytest.mark.parametrize("at", [1, 40])
def test_memory_that_runs_out_while_the_vae_loads(nodes_of, way, at):
    """ComfyUI would go on in tiles with a VAE that it took off the card again."""
    latents = nodes_of("host.latents")
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    def run(model, vae):
        if way == "encode":
            return latents.encode(vae, image, model)
        return latents.decode(vae, torch.full((1, 16, 8, 8), 0.5), 64, 64)

    want = run(small_sd3(), small_vae())
    with HostWithCard().running() as card, torch.inference_mode():
        models = small_sd3(), small_vae()
        with out_of_memory(card.memory, at), pytest.raises(torch.OutOfMemoryError):
            run(*models)
        assert torch.equal(run(*models), want)


@pytest.mark.parametrize(
    ("name", "every"), [(START, 60), (PAPER, 1000), *[pytest.param(name, 10, marks=pytest.mark.long)
                                                     for name in (START, PAPER, WHOLE)]]
)  # fmt: skip
def test_memory_that_runs_out_at_any_allocation(on_card, record_property, caplog, name, every):
    templates = on_card()
    prompt = read_template(name)
    with out_of_memory(templates.memory, inf) as sizes:
        want = templates.run(prompt)
    outcomes = {"worked": 0, OUT_OF_MEMORY: 0}
    for at in range(every, len(sizes) + 1, every):
        templates.forget()
        caplog.clear()
        outcome = "worked"
        with out_of_memory(templates.memory, at):
            try:
                difference = (templates.run(prompt) - want).abs().max()
                assert difference < (NOT_MEASURED if "Could not measure" in caplog.text else TILED)
            except RuntimeError as error:
                (outcome,) = [start for start in outcomes if str(error).startswith(start)]
        if outcome == OUT_OF_MEMORY:
            assert templates.count()["live"] == 0
        assert (templates.run(prompt) - want).abs().max() < TILED
        outcomes[outcome] += 1
    record_property("outcomes", f"{outcomes} of {len(sizes)} allocations")
    assert outcomes["worked" if name != PAPER else OUT_OF_MEMORY] > 0
