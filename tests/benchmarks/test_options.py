"""The flags of run_all: what they select, and the one-line errors for unusable values."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from comparison_samples import SPEC, recipe, run_smoke

from benchmarks import run_all
from benchmarks.folders.reproduction import stored_cell
from benchmarks.options import Options, plan_of
from benchmarks.planning import making, probes
from benchmarks.planning.adjusting import chosen_probes, with_budget
from benchmarks.planning.cells import Inpainting
from benchmarks.planning.row_flags import encoder_rows, task_rows
from benchmarks.planning.rows import Row
from benchmarks.records.results import read_measurements
from downstream.probes import knn
from downstream.probes.knn import Knn
from downstream.probes.linear import Linear
from downstream.probes.svm import Svm
from pretext.system.errors import UserError


def test_a_budget_holds_for_every_row_and_replaces_the_profiles():
    made = recipe(rows={"random": "random", "rotation": "rotation"}, expected_s={"pretrain": 10, "linear": 3})
    images = made.train.images
    longer = with_budget(made, f"images={4 * images}")
    assert longer.train.images == 4 * images
    assert longer.expected_s == {"pretrain": 40, "linear": 3}
    timed = with_budget(made, "seconds=2.5").train
    assert (timed.images, timed.seconds) == (None, 2.5)
    assert with_budget(made, None) is made


def test_every_row_and_probe_sees_images_of_the_chosen_size(smoke):
    plan = plan_of(Options(profile="smoke", image_size=24, out=smoke))
    assert {cell.data.size for cell in plan.cells} == {24}


def test_a_precision_holds_for_all_that_train_an_encoder_unless_they_name_another(tmp_path):
    tasks, probes = ("rotation", "simclr?precision=float32"), ("linear", "fine_tune", "low_shot")
    chosen = Options(
        profile="smoke",
        data=(SPEC,),
        tasks=tasks,
        probes=(*probes, "detection?precision=float32"),
        precision="bfloat16",
        out=tmp_path,
    )
    plan = plan_of(chosen)
    trained = {cell.pretext: cell.train.precision for cell in plan.cells if cell.trains}
    assert trained["rotation"] == trained["supervised"] == "bfloat16"
    assert trained["simclr?precision=float32"] == "float32"
    judged = {cell.probe: cell.protocol for cell in plan.cells if cell.probe}
    assert judged["fine_tune"].precision == judged["low_shot"].precision == "bfloat16"
    assert judged["detection"].precision == "float32"
    usual = {cell.probe: cell for cell in plan_of(dataclasses.replace(chosen, precision="auto")).cells if cell.probe}
    asked = {cell.probe: cell for cell in plan.cells if cell.probe}
    named = {probe: json.loads(cell.settings)["probe_config"].get("precision") for probe, cell in usual.items()}
    assert named == dict.fromkeys(named)  # the default is not part of a cell's name
    assert json.loads(asked["fine_tune"].settings)["probe_config"]["precision"] == "bfloat16"
    assert asked["fine_tune"].name != usual["fine_tune"].name


def test_another_comparison_in_the_folder_is_refused(smoke):
    run_smoke(smoke)
    with pytest.raises(UserError, match="give another --out"):
        run_smoke(smoke, "--data", SPEC + "&seed=1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "lapptop"], "unknown profile 'lapptop'; did you mean 'laptop'"),
        (["--profile", "smoke", "--tasks", "rotatoin"], "unknown task 'rotatoin'; did you mean 'rotation'"),
        (["--profile", "smoke", "--tasks", "rotation?angels=3"], "unknown option 'angels'"),
        (["--profile", "smoke", "--tasks", "rotation?learning_rat=1"], "did you mean 'learning_rate'"),
        (["--profile", "smoke", "--tasks", "rotation?learning_rate=-1"], "learning_rate is -1.0; allowed is above 0"),
        (["--profile", "smoke", "--tasks", "rotation?images=9"], "images is the same for all rows; --budget and"),
        (["--profile", "smoke", "--tasks", "rotation?seed=9"], "seed is the same for all rows"),
        (["--profile", "smoke", "--tasks", "kmeans?warmup=0"], "kmeans takes no training steps, so warmup has no eff"),
        (["--profile", "smoke", "--tasks", "mae"], "--architecture sets the encoder of all rows"),
        (["--profile", "smoke", "--architecture", "alexnett"], "did you mean 'alexnet'"),
        (["--profile", "smoke", "--budget", "image=9"], "--budget image=9: did you mean 'images'"),
        (["--profile", "smoke", "--budget", "images=0"], "--budget images=0: '0' is not a number above 0"),
        (["--profile", "smoke", "--budget", "flops=many"], "--budget flops=many: 'many' is not a number above 0"),
        (["--profile", "smoke", "--probes", "linaer"], "unknown probe 'linaer'; did you mean 'linear'"),
        (["--profile", "smoke", "--data", "scnes"], "did you mean 'scenes'"),
        (["--profile", "smoke", "--encoder", "mine"], "write NAME=FILE"),
        (
            ["--profile", "smoke", "--encoder", "mine=nowhere.safetensors"],
            "nowhere.safetensors does not exist",
        ),
        (["--profile", "smoke", "--encoder", "random=x"], "a row is called random already"),
        (
            ["--profile", "smoke", "--tasks", "rotation", "rotation?"],
            "rows 'rotation' and 'rotation?' would share the files of 'rotation'; rename one of them",
        ),
        (
            ["--profile", "smoke", "--encoder", "a b=timm:resnet18", "--encoder", "a-b=timm:resnet18"],
            "rows 'a b' and 'a-b' would share the files of 'a-b'",
        ),
        (["--seeds", "0"], "--seeds is 0"),
        (["clean", "--older-than", "-1", "--out", "nowhere"], "--older-than is -1.0; allowed is 0 or more days"),
        (["clen", "--out", "nowhere"], "unknown command 'clen'; did you mean 'clean'"),
        (["compare", "random", "random"], "random is given twice; name two different rows"),
        (["compare", "random", "rotation", "--out", "nowhere"], "nowhere holds no results"),
        (["--image-size", "7"], "--image-size is 7; allowed is from 8 to 4096"),
        (["--sedes", "1"], "did you mean --seeds"),
        (["status", "--out", "nowhere"], "no comparison was started there"),
    ],
)
def test_an_unusable_value_is_refused_in_one_line(smoke, arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        run_all.main(arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"architecture": "alexnett"}, "did you mean 'alexnet'"),
        ({"architecture": "alexnet?widht=1"}, "did you mean 'width'"),
        ({"tasks": ("mae",)}, "--architecture sets the encoder of all rows"),
        ({"data": (SPEC, "folder:nowhere")}, "nowhere"),
        ({"pretrain_data": "folder:nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be_used_is_said_before_a_picture_is_decoded(flags, message, monkeypatch, tmp_path):
    monkeypatch.setattr(making, "at_size", lambda *_, **__: pytest.fail("pictures are decoded"))
    with pytest.raises(UserError, match=message):
        plan_of(Options(profile="smoke", out=tmp_path / "out", **({"data": (SPEC,)} | flags)))


def test_two_probes_of_one_name_in_files_are_refused(smoke, tmp_path, monkeypatch):
    monkeypatch.setattr(making, "open_data", lambda *_, **__: pytest.fail("data was opened"))
    source = Path(knn.__file__).read_text()
    for name in ("a b.py", "a-b.py"):
        (tmp_path / name).write_text(source)
    with pytest.raises(UserError, match="probes 'a b' and 'a-b' would share the files of 'a-b'"):
        run_smoke(smoke, "--probes", str(tmp_path / "a b.py"), str(tmp_path / "a-b.py"))


def test_a_probe_may_have_settings_of_its_own():
    profile = {"linear": Linear(train_images=77), "knn": Knn()}
    chosen = chosen_probes(("linear?val_images=5", "svm?folds=4&costs=0.1,2", "knn?ks=3"), profile)
    assert chosen == {
        "linear": Linear(train_images=77, val_images=5),
        "svm": Svm(folds=4, costs=(0.1, 2.0)),
        "knn": Knn(ks=(3,)),
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("knm?k=3",), "unknown probe 'knm'; did you mean 'knn'"),
        (("linear?train=3",), "linear: unknown option 'train'; did you mean 'iterations'? known: "),
        (("linear?train_images=few",), "linear: train_images=few: expected a whole number"),
        (("knn?ks=3,few",), "knn: ks=3,few: expected a whole number"),
        (("knn?ks=",), "knn: "),
        (("linear", "linear?train_images=3"), "linear is given twice; a table has one column of a probe"),
        (("linear?seed=3",), "leave out seed; --seeds sets the number of seeds"),
    ],
)
def test_wrong_settings_of_a_probe_are_one_line(given, message):
    with pytest.raises(UserError) as caught:
        chosen_probes(given, {"linear": Linear()})
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_one_line(smoke, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="give another --out"):
        run_smoke(tmp_path / "file" / "out")


def test_a_task_spec_is_a_row_of_its_own():
    rows = task_rows(("rotation?", "simclr"), recipe(rows={"simclr": "simclr:small"}))
    assert {row.name: row.task for row in rows} == {
        "random": "random",
        "supervised": "supervised",
        "rotation?": "rotation?",
        "simclr": "simclr:small",
    }


def test_settings_make_a_row_that_differs_in_them_only():
    profile = recipe(
        rows={"simclr": "simclr:small?temperature=0.3&hidden=64", "mine": "rotation?rotations=one"},
        training={"simclr": {"batch_size": 128}},
    )
    tasks = ("simclr?temperature=0.1&learning_rate=3e-3", "simclr?temperature=0.2", "mine?warmup=0.5", "moco")
    rows = {row.name: (row.task, row.training) for row in task_rows(tasks, profile)}
    assert {name: rows[name] for name in tasks} == {
        "simclr?temperature=0.1&learning_rate=3e-3": (
            "simclr:small?hidden=64&temperature=0.1",
            {"batch_size": 128, "learning_rate": 3e-3},
        ),
        "simclr?temperature=0.2": ("simclr:small?hidden=64&temperature=0.2", {"batch_size": 128}),
        "mine?warmup=0.5": ("rotation?rotations=one", {"warmup": 0.5}),
        "moco": ("moco", {}),
    }


def test_a_row_has_a_task_or_a_source():
    for both in ({}, {"task": "rotation", "source": "timm:resnet18"}):
        with pytest.raises(ValueError, match="give a task or a source"):
            Row("mine", **both)


def test_a_row_with_settings_is_trained_with_them_and_made_again(smoke):
    name = "rotation?learning_rate=3e-3&weight_decay=0"
    run_smoke(smoke, "--tasks", name, "rotation", "--probes", "linear")
    plan = plan_of(Options(profile="smoke", tasks=(name, "rotation"), probes=("linear",), out=smoke))
    trains = {cell.pretext: cell.train for cell in plan.cells if cell.trains}
    assert (trains[name].learning_rate, trains[name].weight_decay) == (3e-3, 0)
    assert dataclasses.replace(trains[name], learning_rate=1e-3, weight_decay=0.05) == trains["rotation"]
    (stored,) = (m for m in read_measurements(smoke) if m.pretext == name)
    encoder, cell = stored_cell(smoke, stored)
    assert (encoder.train.learning_rate, cell.name) == (3e-3, stored.cell)
    assert stored.cell.startswith("rotation-learning_rate=3e-3-weight_decay=0.linear.s0.")


def test_timm_encoders_need_no_name():
    assert encoder_rows(("timm:resnet18",), taken={}, size=32) == (Row("timm:resnet18", source="timm:resnet18"),)


def test_an_inpainting_column_is_known_everywhere(smoke):
    assert probes.default_probe("inpainting") == Inpainting()
    assert "inpainting" in probes.probe_names()


def test_the_promised_flags_are_there():
    names = {field.replace("_", "-") for field in Options.__dataclass_fields__}
    promised = {
        "profile",
        "data",
        "tasks",
        "probes",
        "seeds",
        "out",
        "encoder",
        "download",
        "bad-images",
        "workers",
    }
    assert promised <= names
