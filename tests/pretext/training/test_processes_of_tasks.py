"""Every task on two processes: they stay equal, also after a stop, and compute what one process computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from process_samples import Run, assert_equal, train, two
from training_samples import ENCODER

from pretext.tasks import task_names

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # every task, several times
NAMES = sorted({name.partition(":")[0] for name in task_names()} | {"context_encoder:adversarial", "moco:v3"})
TRANSFORMERS = {"ijepa", "mae", "simmim"}
JOINED = {
    "barlow_twins",
    "colorization",
    "dino",
    "moco",
    "moco:v3",
    "simclr",
    "split_brain",
    "swav",
    "temporal",
    "vicreg",
}
"""Tasks whose loss sees the images of all processes: more than accumulated parts see of each other. Their losses are
compared with those of the whole batch in the tests of the tasks."""
FEW = {"steps": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """For each task: trained by two processes; stopped and gone on; trained by one that accumulates two parts."""
    folder = tmp_path_factory.mktemp("tasks")
    noise = np.random.default_rng(5).integers(0, 256, (48, 32, 32, 3), dtype=np.uint8)
    for number, picture in enumerate(noise):
        file = folder / "clips" / f"clip{number // 6}" / f"{number % 6}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)

    def runs(out, **options):
        for name in NAMES:
            data = f"clips:{folder}/clips" if name == "temporal" else "scenes?size=32&train=64&val=8&test=8"
            encoder = "timm:test_vit?patch_size=8" if name in TRANSFORMERS else ENCODER
            yield Run(data, folder / out / name.replace(":", "-"), name, encoder, **options)

    both = two(
        folder / "meet",
        *runs("whole", settings=FEW),
        *runs("part", settings=FEW, signal_at=1),
        *runs("part", settings=FEW),
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    one = [train(run) for run in runs("one", settings=FEW | {"accumulate": 2})]
    torch.set_num_threads(threads)
    count = len(NAMES)
    return dict(
        zip(NAMES, zip(both[:count], both[count : 2 * count], both[2 * count :], one, strict=True), strict=True)
    )


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


@pytest.mark.parametrize("name", [name for name in NAMES if name not in JOINED])
def test_two_processes_compute_what_one_does_that_accumulates_two_parts(name, trained):
    whole, *_, one = trained[name]
    assert one.end == "finished" and one.steps == whole[0].steps
    assert_equal(whole[0], one)
