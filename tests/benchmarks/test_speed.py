"""The timing command: what it measures, what it prints, and what it refuses."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import tasks as timing
from benchmarks.timing.linear import linear_speeds
from benchmarks.timing.search import search_speed
from benchmarks.timing.speed import main
from benchmarks.timing.tasks import Interval, Load, TaskSpeed, minimal_loop, task_speed
from downstream.probes.linear import Linear
from pretext.datasets import ImageDataset, at_size, open_dataset
from pretext.datasets.pictures import equally_large
from pretext.encoders import build_encoder
from pretext.system.errors import UserError
from pretext.tasks import Batch, build_task

DATA = "scenes?train=12&val=6&test=6"
LOAD = Load(images=24, batch_size=4, image_size=16, encoder="alexnet?width=0.05&stem_stride=1", repetitions=2)
FLAGS = [
    "--images=24",
    "--batch-size=4",
    "--image-size=16",
    f"--encoder={LOAD.encoder}",
    f"--data={DATA}",
    "--repetitions=1",
]


@pytest.fixture(scope="module")
def data() -> ImageDataset:
    return at_size(open_dataset(DATA), LOAD.image_size, bad_images="stop")


@pytest.fixture(scope="module")
def row(data: ImageDataset) -> TaskSpeed:
    return task_speed("rotation", data, LOAD)


def test_shares_are_shares_and_memory_is_that_of_a_process_with_pytorch(row: TaskSpeed) -> None:
    assert row.task == "rotation"
    assert 0 <= row.waiting < 1
    assert 0 < row.views < 1
    assert (1e6 if torch.cuda.is_available() else 50e6) < row.memory < 50e9


def test_results_are_medians_without_the_first_interval_of_each_run(
    data: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds, waits = iter([[9e9, 10, 30], [9e9, 20, 50]]), iter([[0.9, 0.1, 0.3], [0.9, 0.2, 0.2]])
    intervals = iter([[Interval(9e9, 0.9), Interval(40, 0.1)], [Interval(9e9, 0.9), Interval(60, 0.3)]])
    peaks = iter([7, 5])

    def train(task: str, encoder: str, data: object, config: object, out: Path, *, image_size: int) -> None:
        out.mkdir()
        log = [{"images_per_second": s, "data_share": w} for s, w in zip(next(speeds), next(waits), strict=True)]
        (out / "log.jsonl").write_text("\n".join(map(json.dumps, log)))
        (out / "run.json").write_text(json.dumps({"flops_per_image": 4.0}))

    monkeypatch.setattr(timing, "train", train)
    monkeypatch.setattr(timing, "minimal_loop", lambda *given: next(intervals))
    monkeypatch.setattr(timing, "peak_memory", lambda: next(peaks))
    found = task_speed("rotation", data, LOAD)
    assert (found.loop, found.minimal, found.flops) == (25, 50, 25 * 4.0)
    assert (found.waiting, found.views) == pytest.approx((0.2, 0.2))
    assert found.memory == 7


def test_operations_are_counted_with_the_backward_pass(row: TaskSpeed) -> None:
    encoder = build_encoder(LOAD.encoder, input_size=16, seed=0)
    task = build_task("rotation", encoder, seed=0)
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    with FlopCounterMode(display=False) as forward:
        losses = list(task.losses(Batch(equally_large(images), None, torch.Generator())))
    assert losses
    # the backward pass of a layer is two products of the forward's size, the first layer's one
    assert 2 * forward.get_total_flops() / 2 <= row.flops / row.loop <= 3 * forward.get_total_flops() / 2


def test_the_minimal_loop_trains_every_player(data: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    def remember(*args: object, **kwargs: object) -> object:
        task = build_task(*args, **kwargs)  # type: ignore[arg-type]
        built.append((task, {name: value.detach().clone() for name, value in task.named_parameters()}))
        return task

    monkeypatch.setattr("benchmarks.timing.tasks.build_task", remember)
    assert len(list(minimal_loop("context_encoder:adversarial", data, LOAD))) == 6
    ((task, before),) = built
    moved = [name for name, value in task.named_parameters() if not torch.equal(value, before[name])]
    assert any(name.startswith("discriminator") for name in moved)
    assert any(name.startswith("encoder") for name in moved)


def test_the_command_prints_a_row_for_each_task(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tasks = ["rotation", "supervised", "data_dependent?images=6&passes=1"]
    assert main([*FLAGS, "--tasks", *tasks, "--probes", "retrieval"]) == 0
    printed = capsys.readouterr().out
    for task in ("rotation", "supervised"):
        (line,) = [line for line in printed.splitlines() if line.startswith(task)]
        assert len(line.split()) == 8
        assert line.count("%") == 2
    assert re.search(r"^data_dependent\S* fitted once on 6 images in \d+\.\d s$", printed, re.M)
    assert re.search(r"^retrieval +\d+\.\d$", printed, re.M)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_profile_names_the_parts_and_operations_of_tasks_and_probes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FLAGS, "--profile", "--tasks", "rotation", "--probes", "knn"]) == 0
    printed = capsys.readouterr().out
    shares = dict(re.findall(r"^step: (\w+) +([\d.]+)%$", printed, re.M))
    assert {*shares} == {"losses", "backward", "update", "after"}
    assert 50 < sum(map(float, shares.values())) <= 100.5
    assert "convolution_backward" in printed and "knn on random weights" in printed
    with pytest.raises(UserError, match="--profile needs --tasks or --probes"):
        main([*FLAGS, "--profile"])


def test_the_linear_probe_is_as_right_as_scikit_learn() -> None:
    rows = list(linear_speeds(1000, 128, classes=4))
    assert [row.penalty for row in rows] == list(Linear().penalties)
    for row in rows:
        share = row.their_top1 / 100
        half = 196 * math.sqrt(share * (1 - share) / 200)  # the 95 % interval of 200 pictures
        assert abs(row.our_top1 - row.their_top1) <= half / 2
        assert row.our_top1 > 50  # chance is 25
        assert row.our_objective <= row.their_objective + 1e-4


def test_linear_times_nothing_else(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.timing.linear.LINEAR", (200, 16))
    assert main(["--linear"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "200 × 16 features" in lines[0]
    assert [float(line.split()[0]) for line in lines[3:-1]] == list(Linear().penalties)
    assert all(len(line.split()) == 8 for line in lines[3:-1])
    assert re.match(r" +all +\d", lines[-1])


def test_retrieval_times_nothing_else(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([*FLAGS, "--retrieval", "--vectors", "1000", "2000"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"108 patches of .*: [\d,]+ patches/s indexed, [\d,]+ patches/s through the encoder", lines[1])
    for line, count in zip(lines[-2:], (1000, 2000), strict=True):
        vectors, kind, *figures = line.split()
        assert int(vectors.replace(",", "")) == count
        assert kind == "Flat"
        *_, recall, size = (float(figure.replace(",", "").rstrip("%")) for figure in figures)
        assert recall == pytest.approx(1, abs=0.001)  # both are exact
        assert size == pytest.approx(4 * 256, abs=1)


def test_the_lists_of_a_plain_index_are_searched_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.timing.search.default_factory", lambda count: "IVF16_HNSW32,SQfp16")
    row = search_speed(4000)
    assert row.recall > 0.9
    assert 500 < row.bytes < 600


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["--tasks", "rotaton"], "did you mean 'rotation'"),
        (["--tasks", "context_encoder:released"], "released"),
        (["--tasks", "rotation", "--probes", "knm"], "unknown probe 'knm'"),
        (["--images", "4"], "at least two steps"),
        (["--repetitions", "0"], "at least 1"),
        (["--retrieval", "--vectors", "10"], "each at least 1000"),
    ],
)
def test_an_unusable_value_is_refused_in_one_line(argv: list[str], word: str) -> None:
    with pytest.raises(UserError, match=word) as caught:
        main([*FLAGS, *argv])
    assert "\n" not in str(caught.value)
