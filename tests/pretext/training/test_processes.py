"""Training on two processes: equal parameters after every budget, common decisions, one line for errors."""

from __future__ import annotations

import re
import signal

import numpy as np
import pytest
from PIL import Image
from process_samples import Run, assert_equal, two
from torch.multiprocessing.spawn import ProcessExitedException
from training_samples import pictures

from pretext.system.checkpoint import read_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # two processes each
BATCH = 8
BUDGETS = {
    "steps": {"steps": 4},
    "images": {"images": 44},
    "epochs": {"epochs": 1.7},
    "seconds": {"seconds": 0.7},
    "flops": {"flops": 4e9},
    "seconds, accumulated": {"seconds": 0.7, "accumulate": 2},
}


def split_pictures(folder, broken=()):
    """Write 32 pictures of which all are for training, in their order; some are cut short."""
    spec = pictures(folder / "train", broken)
    for split in ("val", "test"):
        (folder / split).mkdir()
        noise = np.random.default_rng(ord(split[0])).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / split / "0.png")
    return spec.removesuffix("/train")


ORDER = np.random.default_rng((0, 0)).permutation(32).tolist()
"""The pictures of the first epoch of seed 0; the first half of each batch is process 0's."""
OF_SECOND, LATER = ORDER[BATCH - 1], ORDER[2 * BATCH - 2]  # neither is picture 0, which is read before step 1
BROKEN = {
    "every fifth": range(0, 32, 5),
    "the first of the set": [0],
    "one of the second process": [OF_SECOND],
    "all of the second process": ORDER[BATCH // 2 : BATCH],
}
BROKEN_BUDGETS = ("steps", "epochs", "seconds, accumulated")


@pytest.fixture(scope="module")
def budgets(tmp_path_factory):
    """How both processes end each budget, with sound and with broken pictures."""
    folder = tmp_path_factory.mktemp("budgets")
    data = split_pictures(folder / "sound")
    runs = {name: Run(data, folder / name, settings=budget) for name, budget in BUDGETS.items()}
    for number, (name, broken) in enumerate(BROKEN.items()):
        spec = split_pictures(folder / f"broken{number}", broken)
        for budget in BROKEN_BUDGETS:
            label = f"{budget}; broken: {name}"
            out = folder / f"{number} {budget}"
            runs[label] = Run(spec, out, "autoencoder", streamed=True, settings=BUDGETS[budget])
    ended = two(folder / "meet", *runs.values())
    return {name: (run, *both) for (name, run), both in zip(runs.items(), ended, strict=True)}


def test_every_budget_ends_with_equal_parameters(budgets):
    assert len(budgets) == len(BUDGETS) + len(BROKEN_BUDGETS) * len(BROKEN)
    for name, (_, first, second) in budgets.items():
        assert (first.end, second.end) == ("finished", "finished"), name
        assert first.steps == second.steps > 0, name
        assert_equal(first, second)


def test_two_processes_do_as_many_steps_as_the_budget_gives(budgets):
    assert budgets["steps"][1].steps == 4
    assert budgets["images"][1].steps == round(44 / 8)
    assert budgets["epochs"][1].steps == round(1.7 * 32 / 8)
    run, ended, _ = budgets["flops"]
    _, about = read_checkpoint(run.out / "checkpoint.safetensors")
    assert ended.steps == max(1, round(4e9 / about["flops_per_image"] / 8))


def test_a_signal_or_a_kill_at_one_step_goes_on_to_the_same_parameters(tmp_path):
    data = pictures(tmp_path / "data")
    few = {"steps": 6}
    stopped = Run(data, tmp_path / "stopped", signal_at=3, settings=few)
    killed = Run(
        data, tmp_path / "killed", signal_at=4, number=signal.SIGKILL, to_both=True,
        settings=few | {"checkpoint_seconds": 0},
    )  # fmt: skip
    with pytest.raises(ProcessExitedException, match="SIGKILL"):
        two(tmp_path / "meet", killed)
    assert not (tmp_path / "killed" / "encoder.safetensors").exists()
    whole, part, rest, after_kill = two(
        tmp_path / "meet",
        Run(data, tmp_path / "whole", settings=few),
        stopped,
        Run(data, tmp_path / "stopped", settings=few),
        Run(data, tmp_path / "killed", settings=few),
    )
    assert [each.end for each in part] == ["KeyboardInterrupt:", "SystemExit: 130"]
    assert [each.steps for each in part] == [3, 3] and [each.steps for each in rest] == [3, 3]
    assert after_kill[0].steps == after_kill[1].steps < 6
    for first, second in (whole, part, rest, after_kill):
        assert_equal(first, second)
    assert_equal(whole[0], rest[0])
    assert_equal(whole[0], after_kill[0])


REFUSED = {
    "a batch of 7": ({"batch_size": 7}, (), r"batch_size 7 is not divisible by the 2 processes"),
    "a batch of one": ({"batch_size": 1}, (), r"batch_size 1 is not divisible by the 2 processes"),
    "one picture each": ({"batch_size": 2}, (), r"needs two or more in each"),
    "all broken": ({}, range(32), r"all 32 pictures cannot be decoded"),
    "stop at the first of the set": ({"bad_images": "stop"}, [0], r"a picture cannot be decoded: .*/00\.png"),
    "stop, in the second": ({"bad_images": "stop"}, [OF_SECOND], rf"cannot be decoded: .*/{OF_SECOND:02}\.png"),
    "stop, one step later": ({"bad_images": "stop"}, [LATER], rf"cannot be decoded: .*/{LATER:02}\.png"),
}


def test_what_two_processes_cannot_train_on_is_one_line_of_the_first_at_the_same_step(tmp_path):
    runs = [
        Run(split_pictures(tmp_path / f"data{k}", broken), tmp_path / f"{k}", "byol", streamed=True,
            settings={"steps": 8} | settings)
        for k, (settings, broken, _) in enumerate(REFUSED.values())
    ]  # fmt: skip
    ended = dict(zip(REFUSED, two(tmp_path / "meet", *runs), strict=True))
    for name, (first, second) in ended.items():
        message = REFUSED[name][2]
        assert re.match(f"UserError: .*{message}", first.end) and "\n" not in first.end
        assert second.end == "SystemExit: 2"
        assert first.steps == second.steps == int(name == "stop, one step later"), name
