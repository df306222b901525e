"""Every file that the project writes, damaged in many ways: it is read, or refused by one line, and nothing else."""

from __future__ import annotations

import collections
import functools
import random
import shutil
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from comparison_samples import SPEC, plan
from damage_samples import damaged
from fuzz_samples import share
from index_samples import build, make_encoder, opened, photographs
from matplotlib.pyplot import close
from training_samples import DATA, run

from benchmarks import run_all
from benchmarks.executors.base import run_cell
from benchmarks.folders.comparison import facts_of
from benchmarks.folders.progress import seconds_left, status
from benchmarks.folders.reproduction import compare_values, stored_cell
from benchmarks.planning import probes
from benchmarks.records.environment import write_environment
from benchmarks.records.results import read_measurements, write_csv, write_failure
from benchmarks.report.content import read_run
from benchmarks.report.figures import _learning_plots
from benchmarks.report.terminal import text_table
from benchmarks.summaries.costs import read_costs
from benchmarks.summaries.verdict import summarise
from downstream.features import split_features
from pretext.datasets import open_dataset
from pretext.datasets.packing import open_or_build
from pretext.encoders import load_encoder
from pretext.inpainting.command import inpainters
from pretext.system.cache import cache_folder
from pretext.system.errors import UserError
from pretext.training.config import TrainConfig
from pretext.training.log import TrainingLog, read_log
from pretext.training.optimisers import make_optimizers
from pretext.training.run_folder import RunFolder, load_task
from retrieval.indexing.index import PatchIndex
from retrieval.regions import Regions

SETTINGS = TrainConfig(steps=4, batch_size=8, log_every=2, workers=0, device="cpu")


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """One sound file of each format: a training run, a comparison, an index; a pack is in the cache."""
    root = tmp_path_factory.mktemp("sound")
    run(root / "run", steps=4, batch_size=8)
    out = root / "comparison"
    planned = plan({"knn": probes.probe_types()["knn"]()})
    for cell in planned.cells:
        assert run_cell(cell, out).state == "done"
    planned.write(out, ["--out", "OUT"])
    write_environment(out, workers=1, threads=1)
    write_failure(out, "supervised.b.s0.00000000", "RuntimeError: a bad day", pretext="supervised", probe="b", seed=0)
    build(make_encoder(), opened(photographs(root / "photographs", range(6))), Regions(), root / "index")
    with pytest.MonkeyPatch.context() as patch:  # stopped before it ends, so that its blocks are kept
        patch.setattr("retrieval.indexing.building.make_vectors", stop)
        with pytest.raises(UserError, match="stopped"):
            build(make_encoder(), opened(root / "photographs"), Regions(), root / "begun")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("downstream.fitting.Path.unlink", lambda *given, **options: None)
        judge(root)
    finish(root)
    return root


def stop(*given, **options):
    raise UserError("stopped")


def judge(root: Path) -> list[float]:
    """Judge by the probe whose training can be resumed; return its scores."""
    encoder = load_encoder(root / "run" / "encoder.safetensors")
    probe = probes.probe("fine_tune", train_images=8, test_images=8, steps=2)
    return [score.value for score in probe.evaluate(encoder, open_dataset(DATA), root / "fitting")]


def read_fitting(root: Path) -> None:
    """Continue, or start over from a damaged checkpoint; the scores are the same."""
    kept = (root / "fitting" / "fitting.safetensors").read_bytes()
    assert judge(root) == judge(root.parent / root.name)
    (root / "fitting" / "fitting.safetensors").write_bytes(kept)


def read_blocks_of_a_build(root: Path) -> None:
    """Go on with a build; what is damaged is computed again."""
    shutil.rmtree(root / "made", ignore_errors=True)
    shutil.rmtree(root / "made.blocks", ignore_errors=True)
    shutil.copytree(root / "begun.blocks", root / "made.blocks")
    made = build(make_encoder(), opened(root / "photographs"), Regions(), root / "made")
    assert len(made.table) == len(PatchIndex.open(root / "index").table)
    assert not (root / "made.blocks").exists()


def read_growing_index(root: Path) -> None:
    shutil.rmtree(root / "grown", ignore_errors=True)
    shutil.copytree(root / "index", root / "grown")
    build(make_encoder(), opened(root / "photographs"), Regions(), root / "grown", add=True)


def read_features(root: Path) -> None:
    """A damaged file of features is computed again."""
    encoder = load_encoder(root / "run" / "encoder.safetensors")
    found = split_features(encoder, open_dataset(SPEC), "test", most=64)
    expected = _features(root)
    assert all(torch.equal(found.stages[name], values) for name, values in expected.items())


@functools.cache
def _features(root: Path) -> dict[str, torch.Tensor]:
    encoder = load_encoder(root / "run" / "encoder.safetensors")
    return split_features(encoder, open_dataset(SPEC), "test", most=64).stages


def read_training_run(root: Path) -> None:
    """Read a training run as `inpaint`, the page and the next `train` in its folder do."""
    problems = []
    for use in (_inpaint, _train_again):
        try:
            use(root)
        except UserError as error:
            problems.append(error)
    if problems:
        raise problems[0]


def _inpaint(root: Path) -> None:
    load_task(root / "run")
    inpainters((root / "run",))


def _train_again(root: Path) -> None:
    run(root / "run", steps=4, batch_size=8)


def read_encoder(root: Path) -> None:
    load_encoder(root / "run" / "encoder.safetensors")


def read_checkpoint(root: Path) -> None:
    folder = root / "run"
    model = load_task(folder)
    optimizers = make_optimizers(model, SETTINGS)
    stored = RunFolder(folder, {}).checkpoint()
    assert stored is not None
    RunFolder(folder, {}).restore(model, optimizers, stored.tensors)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for optimizer in optimizers.values():
        optimizer.step()


def read_training_log(root: Path) -> None:
    folder = root / "run"
    with TrainingLog(folder, {"task": "t"}, step=4, total_steps=8, config=SETTINGS):
        pass
    assert read_log(folder / "log.jsonl") == read_log(folder / "log.jsonl")


def read_comparison(root: Path) -> None:
    """Read a comparison as `status`, the table, `compare`, `reproduce` and the facts and plots of the report do."""
    out = root / "comparison"
    problems = []
    for reader in (_status, _table, facts_of, _facts, _reproduction):
        try:
            reader(out)
        except UserError as error:
            problems.append(error)
    if problems:
        raise problems[0]


def _status(out: Path) -> None:
    run_all.main(["status", "--out", str(out)])
    seconds_left(out, *status(out))


def _table(out: Path) -> None:
    measurements = read_measurements(out)
    text_table(summarise(measurements), read_costs(out, measurements), width=80)
    write_csv(out)


def _facts(out: Path) -> None:
    found = read_run(out)
    found.facts()
    found.notes()
    for drawn in _learning_plots(found):
        close(drawn.figure)


def _reproduction(out: Path) -> None:
    for measured in read_measurements(out)[:1]:
        stored_cell(out, measured)
        compare_values([measured], [measured])


def finish(root: Path) -> None:
    """Write tables and report, as a comparison does at its end."""
    run_all.finish(root / "comparison")


def read_index(root: Path) -> None:
    encoder = make_encoder()
    index = PatchIndex.open(root / "index")
    index.search(np.zeros((1, index.vectors.d), np.float32) + 1, 3, encoder=encoder)


def read_pack(root: Path) -> None:
    """A damaged pack is made again."""
    pack = open_or_build(open_dataset(SPEC).split("test"), 16, "squash")
    assert torch.equal(pack.images, _pictures())


@functools.cache
def _pictures() -> torch.Tensor:
    return open_or_build(open_dataset(SPEC).split("test"), 16, "squash").images.clone()


FORMATS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "encoder file": ("run/encoder.safetensors", read_encoder),
    "checkpoint": ("run/checkpoint.safetensors", read_checkpoint),
    "training log": ("run/log.jsonl", read_training_log),
    "log in a comparison": ("comparison/pretrain/rotation*/log.jsonl", read_comparison),
    "run.json": ("comparison/pretrain/rotation*/run.json", read_comparison),
    "results": ("comparison/results/*.json", read_comparison),
    "plan": ("comparison/plan.json", read_comparison),
    "failure": ("comparison/failures/*.json", read_comparison),
    "environment": ("comparison/environment.json", read_comparison),
    "run.json of a run": ("run/run.json", read_training_run),
    "report's inputs": ("comparison/.report-inputs", finish),
    "table": ("comparison/results.csv", finish),
    "fitting": ("fitting/fitting.safetensors", read_fitting),
    "features": ("FEATURES/*.safetensors", read_features),
    "blocks": ("begun.blocks/*.npz", read_blocks_of_a_build),
    "settings of blocks": ("begun.blocks/asked.json", read_blocks_of_a_build),
    "pictures of an index": ("index/pictures.npy", read_growing_index),
    "manifest of a growing index": ("index/manifest.json", read_growing_index),
    "index manifest": ("index/manifest.json", read_index),
    "index vectors": ("index/index.faiss", read_index),
    "index table": ("index/patches.npy", read_index),
    "pack manifest": ("PACK/manifest.json", read_pack),
    "pack pictures": ("PACK/images.bin", read_pack),
}


QUICK = dict.fromkeys(("fitting", "run.json of a run", "report's inputs", "table", "encoder file"), 2)
"""Inputs of formats whose reading takes long."""


def answers(name: str, sound: Path, folder: Path, count: int) -> collections.Counter[str]:
    """Read `count` damaged files of a format; return how often they were read, were refused, or raised what where."""
    pattern, reader = FORMATS[name]
    shutil.copytree(sound, folder, dirs_exist_ok=True)
    if pattern.startswith("FEATURES"):
        _features(folder)
        files = [max(cache_folder("features").glob("*.safetensors"), key=lambda file: file.stat().st_mtime)]
    elif pattern.startswith("PACK"):
        _pictures()
        manifest = max((cache_folder("packs")).glob("*/manifest.json"), key=lambda file: file.stat().st_mtime)
        files = [manifest.with_name(Path(pattern).name)]
    else:
        files = sorted(folder.glob(pattern))
    reader(folder)  # undamaged
    before = {file: file.read_bytes() for file in files}
    seen: collections.Counter[str] = collections.Counter()
    for number in range(count):
        drawn = random.Random(f"{name} {number}")
        file = drawn.choice(files)
        way, content = damaged(before[file], drawn)
        file.write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reader(folder)
            seen["read"] += 1
        except UserError as error:
            seen["refused" if "\n" not in str(error) else f"more than one line: {error}"] += 1
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = next(
                (f for f in reversed(traceback.extract_tb(error.__traceback__)) if "/tests/" not in f.filename), frame
            )
            seen[f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {error}"[:160]] += 1
            print(f"{name}, number {number}, {way}: {error!r:.300}")
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(before[file])
    return seen


def check(name: str, sound: Path, folder: Path, count: int) -> None:
    seen = answers(name, sound, folder, count)
    print(f"{name}: {count} damaged files: {seen['read']} read, {seen['refused']} refused by one line")
    assert not set(seen) - {"read", "refused"}, "\n".join(f"{times} x {what}" for what, times in seen.most_common())


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_read_or_refused(name, sound, tmp_path):
    check(name, sound, tmp_path, QUICK.get(name, 8))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", FORMATS)
def test_many_damaged_files_are_read_or_refused(name, sound, tmp_path):
    check(name, sound, tmp_path, share("damaged files", name, list(FORMATS)))
