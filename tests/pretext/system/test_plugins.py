"""A task and a probe in files of one's own, and the whole ones that CONTRIBUTING.md shows."""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
from comparison_samples import SPEC
from module_samples import example
from task_samples import SMALL, batch, built, generator, noise, scenes, trained

from benchmarks.planning.adjusting import chosen_probes
from benchmarks.planning.cells import encoder_cell, probe_cell
from benchmarks.planning.making import open_data
from benchmarks.planning.recipes import laptop
from benchmarks.planning.row_flags import task_rows
from benchmarks.planning.rows import by_name
from downstream.__main__ import main as judge_main
from downstream.features import labelled_features
from pretext.__main__ import main
from pretext.datasets import open_dataset
from pretext.encoders import build_encoder, load_encoder
from pretext.system.errors import UserError
from pretext.tasks import task_class, task_config
from pretext.training.config import TrainConfig
from pretext.training.loop import train
from pretext.training.run_folder import load_task
from pretext.transforms.augmentation import augment

loop = importlib.import_module("pretext.training.loop")
DATA = "scenes?size=32&train=64&val=8&test=8"
TASK = "from pretext.tasks import Task\n"


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "mean_colour.py"
    path.write_text(example("task"))
    return path


def run(task, out, **settings):
    config = TrainConfig(**({"steps": 2, "batch_size": 8, "workers": 0, "device": "cpu"} | settings))
    return train(str(task), SMALL, open_dataset(DATA), config, out, image_size=32)


@pytest.mark.parametrize("what", ["task", "probe", "encoder"])
def test_the_examples_are_short_and_complete(what):
    assert len(example(what).splitlines()) < 60
    assert example(what).startswith('"""')


def test_the_example_trains_and_goes_on(file, tmp_path):
    made = run(file, tmp_path / "run")
    assert load_encoder(made).record["task"] == str(file)
    assert load_task(tmp_path / "run").metrics()["error"] > 0
    assert run(file, tmp_path / "run") == made


def test_the_example_keeps_the_contract(file):
    def losses(seed):
        task = built(str(file))
        ((player, loss),) = task.losses(batch(noise(8), seed))
        loss.backward()
        assert all(parameter.grad is not None for parameter in task.players()[player])
        return loss.item()

    assert losses(0) == losses(0) != losses(1)
    for field in ("crop_min=2", "crop_min=nan"):
        with pytest.raises(UserError, match="allowed is from"):
            task_config(f"{file}?{field}")


PREPARES = """    prepares_on = 5

    def prepare(self, batch):
        assert batch.images.shape == (5, 3, 32, 32) and batch.labels is None
        self.prepared += len(batch.images)

    def losses("""


def test_a_task_with_steps_prepares_once_and_its_pictures_count(file, tmp_path, monkeypatch):
    code = example("task").replace("    def losses(", PREPARES)
    file.write_text(code.replace('"error"', '"prepared", torch.zeros(()))\n        self.register_buffer("error"', 1))
    real = loop._step

    def stopped(*given):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*given)

    monkeypatch.setattr(loop, "_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(file, tmp_path / "run", steps=3)
    monkeypatch.undo()
    assert load_encoder(run(file, tmp_path / "run", steps=3)).record["images_seen"] == 3 * 8 + 5
    assert load_task(tmp_path / "run").prepared == 5


@pytest.mark.slow
def test_the_example_learns(file):
    made = trained(str(file), steps=200, rate=2e-3)
    colours = augment(scenes("train"), made.task.crops, generator()).mean(dim=(2, 3))
    chance = (colours - colours.mean(dim=1, keepdim=True)).var(dim=0, correction=0).mean()  # the best constant guess
    assert sum(made.losses[-20:]) / 20 < 0.85 * chance, (made.losses[::10], chance)


def test_the_command_takes_a_file_and_its_settings_are_flags(file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = f"train mean_colour.py:whole --data {DATA} --encoder {SMALL} --image-size 32 --steps 1 --batch-size 8"
    assert main([*words.split(), "--workers", "0", "--device", "cpu", "--crop-min", "0.5"]) == 0
    record = load_encoder(tmp_path / "runs" / "mean_colour-whole" / "encoder.safetensors").record
    assert record["task_config"] == {"crop_min": 0.5} and record["task"] == f"{tmp_path}/mean_colour.py:whole"
    with pytest.raises(UserError, match="did you mean --crop-min"):
        main([*words.split(), "--crop-mim", "0.5"])


def test_another_version_is_another_run_and_another_cell(file, tmp_path):
    source, _ = open_data(SPEC, 16, bad_images="skip", download=False)

    def cell(path, spec=""):
        train = TrainConfig(images=8, batch_size=4)
        task = f"{path}{spec}"
        return encoder_cell("mean_colour", seed=0, data=source, encoder=SMALL, task=task, train=train).name

    first = cell(file)
    (tmp_path / "elsewhere").mkdir()
    (moved := tmp_path / "elsewhere" / "mean_colour.py").write_text(file.read_text())
    assert cell(moved) == first != cell(file, ":whole")
    run(file, tmp_path / "run")
    file.write_text(file.read_text().replace("crop_min: float = 0.3", "crop_min: float = 0.3  # a third"))
    assert cell(file) != first
    with pytest.raises(UserError, match="task_sha256"):
        run(file, tmp_path / "run")


def test_rows_are_called_after_the_file(file):
    rows = by_name(task_rows((str(file), f"{file}:whole?crop_min=0.9"), laptop()))
    assert rows["mean_colour"].task == str(file)
    assert rows["mean_colour:whole?crop_min=0.9"].task == f"{file}:whole?crop_min=0.9"
    (file.parent / "rotation.py").write_text(example("task"))
    for taken in (str(file.parent / "rotation.py"), str(file)):
        with pytest.raises(UserError, match="a row is called"):
            task_rows((str(file), taken), laptop())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("x = 1", "must define one Task with losses, not none; CONTRIBUTING.md has an example"),
        (f"{TASK}class A(Task): pass", "must define one Task with losses, not none"),
        (f"{TASK}class A(Task): losses = None\nclass B(A): pass", "must define one Task with losses, not A, B"),
        (f"{TASK}class A(Task): losses = None", "A has no dataclass Config; CONTRIBUTING.md has an example"),
        (f"{TASK}class A(Task):\n  losses = None\n  class Config: pass", "A has no dataclass Config"),
        ("x = 1\ny = (", "line 2: SyntaxError"),
        ("import os\n\nraise OSError('a bad\\nday')", "line 3: OSError: a bad"),
        ("from pretext.tasks import Tosk", "line 1: ImportError"),
    ],
)
def test_a_file_that_is_no_task_is_one_line(tmp_path, content, said):
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    for _ in range(2):  # what failed is not remembered
        with pytest.raises(UserError) as caught:
            task_class(str(path))
        assert said in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_variant_that_there_is_not_is_named(file):
    with pytest.raises(UserError, match="no variant 'hole'; did you mean 'whole'"):
        task_config(f"{file}:hole")


# Probes


@pytest.fixture
def probe(tmp_path, monkeypatch):
    path = tmp_path / "nearest_mean.py"
    path.write_text(example("probe"))
    return path


def test_the_example_judges(probe):
    data = open_dataset("scenes?size=16&train=200&val=40&test=100")
    encoder = build_encoder("alexnet?width=0.1&stem_stride=1", input_size=16, seed=0)
    judge = chosen_probes((f"{probe}?train_images=100",), {})["nearest_mean?train_images=100"]
    scores = list(judge.evaluate(encoder, data))
    (headline,) = [score for score in scores if score.headline]
    (again,) = [score for score in pickle.loads(pickle.dumps(judge)).evaluate(encoder, data) if score.headline]
    assert np.array_equal(again.items, headline.items)

    train, _, test = labelled_features(encoder, data, train_images=100, most=1024, seed=0)
    x, y = train.stages[headline.stage].double().numpy(), train.targets.numpy()
    means = [x[y == k].mean(axis=0) if (y == k).any() else np.full(x.shape[1], 1e9) for k in range(len(data.classes))]
    at = test.stages[headline.stage].double().numpy()
    nearest = [np.argmin([((row - mean) ** 2).sum() for mean in means]) for row in at]
    right = np.equal(nearest, test.targets.numpy())
    assert headline.value == pytest.approx(100 * np.mean(right), abs=1.0)


@pytest.mark.slow
def test_a_probe_goes_to_another_process_and_is_known_by_its_content(probe, tmp_path):
    judge = chosen_probes((str(probe),), {})["nearest_mean"]
    script = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read()))"
    there = subprocess.run([sys.executable, "-c", script], input=pickle.dumps(judge), capture_output=True, check=True)
    assert there.stdout.decode().strip() == repr(judge)

    source, _ = open_data(SPEC, 16, bad_images="skip", download=False)
    maker = encoder_cell("random", seed=0, data=source, encoder=SMALL, task="random", train=TrainConfig(images=1))
    first = probe_cell(maker, "nearest_mean", judge, seed=0).name
    written = pickle.dumps(judge)
    (tmp_path / "elsewhere").mkdir()
    (moved := tmp_path / "elsewhere" / "nearest_mean.py").write_text(probe.read_text())
    assert probe_cell(maker, "nearest_mean", chosen_probes((str(moved),), {})["nearest_mean"], seed=0).name == first
    probe.write_text(probe.read_text() + "# another version\n")
    assert probe_cell(maker, "nearest_mean", chosen_probes((str(probe),), {})["nearest_mean"], seed=0).name != first
    with pytest.raises(UserError, match="was changed during the run"):
        pickle.loads(written)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("x = 1", "defines 0 probes"),
        ("from pretext.judging import Probe\nclass A(Probe): pass", "A has no evaluate"),
        ("import pretext.judgink", "line 1: ModuleNotFoundError"),
    ],
)
def test_a_file_that_is_no_probe_is_one_line(tmp_path, content, said):
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    for ask in (lambda: chosen_probes((str(path),), {}), lambda: judge_main([str(path), "--encoder", "x"])):
        with pytest.raises(UserError, match=said):
            ask()


def test_the_command_shows_a_probes_settings(probe, capsys):
    words = ["--encoder", "random:alexnet?width=0.1&stem_stride=1", "--image-size", "16"]
    data = ["--data", "scenes?size=16&train=60&val=20&test=20"]
    assert judge_main([str(probe), *words, *data, "--train-images", "50"]) == 0
    assert "top1" in capsys.readouterr().out
    probe_named_as_ours = probe.with_name("linear.py")
    probe_named_as_ours.write_text(probe.read_text())
    with pytest.raises(UserError, match="a probe is called linear already"):
        chosen_probes((str(probe_named_as_ours),), {})
