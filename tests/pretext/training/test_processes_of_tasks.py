"""Every task on two processes: they stay equal, also after a stop, and compute what one process computes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from process_samples import Run, assert_equal, loop, train, two
from task_samples import NAMES
from torch.overrides import TorchFunctionMode
from training_samples import ENCODER

from pretext.training.micro_batches import seeded_generator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # every task, several times
TRANSFORMERS = {"ijepa", "mae", "simmim"}
"""Tasks that draw for a whole part, and whose networks have no batch normalisation."""
SPECS = {"moco": "moco?norm_groups=1", "kmeans": "kmeans?patches=1000&iterations=3"}
"""Settings of some tasks: normalised over the whole batch, and quick."""
BATCH = 22
"""No other dimension of what the tasks draw has this size."""
FEW = {"steps": 2, "batch_size": BATCH, "optimizer": "sgd", "learning_rate": 0.02, "clip_norm": 1.0}
"""Adam would make steps of its full rate from gradients that are zero but for rounding."""


class DrawnInHalves(TorchFunctionMode):
    """Draw for the whole batch of one process what two processes draw for its halves."""

    def micro_batches(self, batch, config, step, device, least=1):
        self.whole = torch.Generator()
        self.halves = [seeded_generator(device, config.seed, step, 0, number) for number in range(2)]
        return [replace(batch, generator=self.whole)]

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        whole = kwargs.get("generator") is not None and kwargs["generator"] is getattr(self, "whole", None)
        if not whole or func not in (torch.rand, torch.randn, torch.randint):
            return func(*args, **kwargs)
        *bounds, size = args if isinstance(args[-1], tuple) else (tuple(args),)
        (where,) = (number for number, length in enumerate(size) if length == BATCH)
        half = tuple(BATCH // 2 if number == where else length for number, length in enumerate(size))
        del kwargs["generator"]
        return torch.cat([func(*bounds, half, generator=one, **kwargs) for one in self.halves], dim=where)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """For each task: trained by two processes; stopped and gone on; trained by one."""
    folder = tmp_path_factory.mktemp("tasks")
    noise = np.random.default_rng(5).integers(0, 256, (48, 32, 32, 3), dtype=np.uint8)
    for number, picture in enumerate(noise):
        file = folder / "clips" / f"clip{number // 6}" / f"{number % 6}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)

    def runs(out, names=NAMES, **options):
        for name in names:
            data = f"clips:{folder}/clips" if name == "temporal" else "scenes?size=32&train=64&val=8&test=8"
            encoder = "timm:test_vit?patch_size=8" if name in TRANSFORMERS else ENCODER
            yield Run(data, folder / out / name.replace(":", "-"), SPECS.get(name, name), encoder, **options)

    both = two(
        folder / "meet",
        *runs("whole", settings=FEW),
        *runs("part", settings=FEW, signal_at=1),
        *runs("part", settings=FEW),
    )
    threads, micro_batches = torch.get_num_threads(), loop.micro_batches
    torch.set_num_threads(1)
    one = {n: train(run) for n in TRANSFORMERS for run in runs("one", [n], settings=FEW | {"accumulate": 2})}
    names = [name for name in NAMES if name not in TRANSFORMERS | {"temporal"}]
    with DrawnInHalves() as halves:
        loop.micro_batches = halves.micro_batches
        one |= {name: train(run) for name in names for run in runs("one", [name], settings=FEW)}
    loop.micro_batches = micro_batches
    torch.set_num_threads(threads)
    count = len(NAMES)
    three = zip(both[:count], both[count : 2 * count], both[2 * count :], strict=True)
    return {name: (*ended, one.get(name)) for name, ended in zip(NAMES, three, strict=True)}


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_are_equal_and_go_on_to_the_same_parameters_after_a_stop(name, trained):
    whole, part, rest, _ = trained[name]
    in_steps = whole[0].steps > 0
    for first, second in (whole, part, rest) if in_steps else (whole, part):
        assert first.steps == second.steps
        assert_equal(first, second)
    assert [each.end for each in (*whole, *rest)] == ["finished"] * 4
    if in_steps:
        assert (whole[0].steps, part[0].steps, rest[0].steps) == (2, 1, 1)
        assert part[0].end == "KeyboardInterrupt:"
        assert_equal(whole[0], rest[0])


@pytest.mark.parametrize("name", sorted(TRANSFORMERS))
def test_without_batch_normalisation_they_compute_what_one_does_that_accumulates_two_parts(name, trained):
    whole, *_, one = trained[name]
    assert one.end == "finished" and one.steps == whole[0].steps
    assert_equal(whole[0], one)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in TRANSFORMERS | {"temporal"}])
def test_they_compute_what_one_process_does_that_holds_the_whole_batch(name, trained):
    whole, *_, one = trained[name]
    assert one.end == "finished" and one.steps == whole[0].steps
    for key, value in one.state.items():  # running statistics are among them
        np.testing.assert_allclose(whole[0].state[key], value, rtol=1e-3, atol=5e-5, err_msg=key)
