"""A sweep: a row whose settings are chosen on val."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from comparison_samples import InProcess
from PIL import Image

from benchmarks import run_all, sweeping
from benchmarks.executors import choosing, schedule
from benchmarks.options import Options
from benchmarks.planning.cells import Cell
from benchmarks.records.results import encoder_path, read_measurements, read_plan
from benchmarks.sweeping import settings_of, val_accuracy
from pretext.datasets import open_dataset
from pretext.encoders import build_encoder
from pretext.system.errors import UserError

SPEC = "scenes?size=16&train=96&val=48&test=16"
SWEEP = "rotation?rotations=one,all"
ARGUMENTS = [
    *("--profile", "smoke", "--image-size", "16", "--architecture", "alexnet?width=0.1&stem_stride=1"),
    *("--budget", "images=64", "--tasks", "random"),
]
JUDGED = ["--data", SPEC, "--probes", "knn"]


def test_settings_are_all_combinations():
    assert settings_of("rotation?a=1,2&b=x,y,x&c=3") == (
        "rotation?a=1&b=x&c=3",
        "rotation?a=1&b=y&c=3",
        "rotation?a=2&b=x&c=3",
        "rotation?a=2&b=y&c=3",
    )


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("rotation", "write TASK"),
        ("rotation?", "write TASK"),
        ("rotation?rotations", "write TASK"),
        ("rotation?rotations=", "write TASK"),
        ("rotation?rotations=one", "has 1 settings; allowed is from 2 to 100"),
        ("rotation?a=" + ",".join(map(str, range(101))), "has 101 settings"),
        ("my_task.py?rate=1,2", "give a task by its name"),
    ],
)
def test_what_is_no_sweep_is_refused(sweep, message):
    with pytest.raises(UserError, match=message):
        settings_of(sweep)


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("rotation?rotatons=one,all", "--sweep rotation.rotatons=one,all: .*rotatons"),
        ("rotation?rotations=one,some", "--sweep .*some"),
        ("rotatoin?rotations=one,all", "--sweep .*rotatoin"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_trained(sweep, message, tmp_path):
    with pytest.raises(UserError, match=message):
        run_all.main([*ARGUMENTS, *JUDGED, "--sweep", sweep, "--out", str(tmp_path)])
    assert not (tmp_path / "pretrain").exists()


def test_data_without_classes_is_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(40):
        noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{number}.png")
    given = ["--data", f"folder:{tmp_path / 'photos'}", "--probes", "label_free"]
    with pytest.raises(UserError, match=r"chooses by classes on val, and .* has no class per picture"):
        run_all.main([*ARGUMENTS, *given, "--sweep", SWEEP, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out" / "pretrain").exists()


@pytest.mark.slow
def test_accuracy_on_val_is_that_of_a_loop():
    data, encoder = open_dataset(SPEC), build_encoder("alexnet?width=0.1&stem_stride=1", input_size=16, seed=0)
    best = 0.0
    for stage in range(len(encoder.stages)):
        vectors = {}
        for name in ("train", "val"):
            part = data.split(name)
            with torch.no_grad():
                maps = [encoder.eval()(part[i][0][None])[stage][0].mean((1, 2)).numpy() for i in range(len(part))]
            vectors[name] = np.stack(maps).astype(np.float64), [part[i][1]["label"] for i in range(len(part))]
        (database, labels), (queries, answers) = vectors["train"], vectors["val"]
        unit = [(each - database.mean(0)) for each in (database, queries)]
        unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in unit]
        right = 0
        for query, answer in zip(unit[1], answers, strict=True):
            cosines = unit[0] @ query
            votes = np.zeros(10)
            for place in np.argsort(-cosines)[:20]:
                votes[int(labels[place])] += np.exp(cosines[place] / 0.07)
            right += int(votes.argmax() == int(answer))
        best = max(best, 100 * right / len(answers))
    assert val_accuracy(encoder, data) == pytest.approx(best, abs=100 / 48)


@pytest.mark.slow
def test_the_best_on_val_is_a_row_and_is_not_chosen_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(choosing, "chosen_executor", lambda *_: (InProcess, None))
    reached = iter([30.0, 20.0])  # rotations=all comes first
    monkeypatch.setattr(sweeping, "val_accuracy", lambda encoder, data: next(reached))
    words = [*ARGUMENTS, *JUDGED, "--sweep", SWEEP, "--workers", "1", "--out", str(tmp_path)]
    assert run_all.main(words) == 0
    assert {row.pretext for row in read_measurements(tmp_path)} >= {"random", "rotation?rotations=all"}
    assert "rotation?rotations=one" not in {row.pretext for row in read_measurements(tmp_path)}
    (note,) = (note for note in read_plan(tmp_path)["notes"] if "chosen" in note)
    assert note == (
        "Row rotation?rotations=all was chosen from 2 settings by k-NN top-1 on val with seed 0: 30.0 %; "
        "rotation?rotations=one 20.0 %."
    )
    assert "was chosen from 2 settings" in (tmp_path / "report.html").read_text()

    assert run_all.main(words) == 0  # the choice is kept: there is no third accuracy
    kept = json.loads((tmp_path / "sweep.json").read_text())
    assert [each["chosen"] for each in kept["sweeps"].values()] == ["rotation?rotations=all"]
    assert "nothing to compute" in capsys.readouterr().out


def test_a_setting_that_fails_is_named_and_the_choice_waits_for_it(tmp_path, monkeypatch):
    def first_only(cells, out, pool, expected):
        encoder_path(out, cells[0].name).parent.mkdir(parents=True)
        encoder_path(out, cells[0].name).touch()
        return {cell.name: "it broke" for cell in cells[1:]}

    monkeypatch.setattr(schedule, "run_and_show", first_only)
    monkeypatch.setattr(choosing, "chosen_executor", lambda *_: (InProcess, None))
    words = [*ARGUMENTS, *JUDGED, "--sweep", SWEEP, "--workers", "1", "--out", str(tmp_path)]
    with pytest.raises(
        UserError, match=r"1 of 2 settings could not be trained \(rotation\?rotations=\w+\); see .*fail"
    ):
        run_all.main(words)
    assert not (tmp_path / "sweep.json").exists()


@pytest.mark.slow
def test_a_dry_run_trains_nothing(tmp_path, capsys):
    assert run_all.main([*ARGUMENTS, *JUDGED, "--sweep", SWEEP, "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "The best of 2 settings will be a row" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_the_choice_is_made_again_on_other_pictures(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(Cell, "is_done", lambda *_: True)
    monkeypatch.setattr(
        sweeping, "_judged", lambda cells, data, _: asked.append(data.spec) or {cell.pretext: 1.0 for cell in cells}
    )
    other = SPEC.replace("val=48", "val=40")
    for sets in ((SPEC,), (other, SPEC), (SPEC, other)):
        options = Options(profile="smoke", data=sets, pretrain_data=SPEC, probes=("knn",), out=tmp_path)
        sweeping._chosen(SWEEP, options, [], (InProcess, None))
    assert asked == [SPEC, other]
