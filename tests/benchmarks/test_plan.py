"""The plan, its hashes, the loop, the locks and the workers, with probes that cost nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter

import pytest
from comparison_samples import ROWS, SPEC, Constant, Masked, plan, recipe

from benchmarks import executor, schedule
from benchmarks import plan as suite
from benchmarks.cells import CODE, Cell, DataSource, Inpainting, encoder_cell, judge_cell
from benchmarks.executor import InProcess, LocalProcesses, Outcome, run_cell
from benchmarks.locks import cell_lock, is_locked
from benchmarks.plan import make_plan, open_data, set_aside
from benchmarks.progress import status
from benchmarks.recipes import PROFILES
from benchmarks.results import encoder_path, read_failures, read_measurements, result_path
from benchmarks.schedule import Estimate, run
from pretext.datasets.base import ImageDataset
from pretext.system.errors import UserError
from pretext.training.config import TrainConfig


class Bare(ImageDataset):
    """Pictures of which nothing is known."""

    spec = "folder:photos"
    notes = ("a note",)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise IndexError

    fingerprint = "bare"


def names(planned):
    return {(cell.pretext, cell.probe, cell.seed): cell.name for cell in planned.cells}


# The plan


def test_a_cell_is_row_by_probe_by_seed_behind_an_encoder_of_its_row_and_seed():
    planned = plan(seeds=2)
    assert Counter(bool(cell.judge) for cell in planned.cells) == {False: 3 * 2, True: 3 * 2 * 2}
    by_name = {cell.name: cell for cell in planned.cells}
    assert len(by_name) == len(planned.cells)
    for cell in planned.cells:
        if cell.judge is not None:
            maker = by_name[cell.made_by]
            assert (maker.pretext, maker.seed, maker.judge) == (cell.pretext, cell.seed, None)
            assert cell.judge.seed == cell.seed
        if cell.train is not None:
            assert cell.train.seed == cell.seed


def test_names_can_be_read():
    planned = plan(rows={"rotation": "rotation"})
    maker, first, _ = planned.cells
    assert maker.name[:-8] == "rotation.s0."
    assert first.name[:-8] == "rotation.a.s0."


def test_a_hash_covers_what_the_value_depends_on_and_nothing_else():
    start = names(plan())
    assert names(plan()) == start
    more = names(plan(seeds=3))
    assert {key: more[key] for key in start} == start  # more seeds leave the first one's cells alone

    longer = names(plan(train=TrainConfig(images=16, batch_size=4)))
    assert longer["random", "a", 0] == start["random", "a", 0]  # random weights are not trained
    assert longer["rotation", "", 0] != start["rotation", "", 0]
    assert longer["rotation", "a", 0] != start["rotation", "a", 0]

    other_probe = names(plan({"a": Constant(value=5), "b": Constant(value=2)}))
    changed = {key for key in start if other_probe[key] != start[key]}
    assert changed == {(row, "a", 0) for row in ROWS}

    other_encoder = names(plan(encoder="alexnet?width=0.2&stem_stride=1"))
    assert not set(other_encoder.values()) & set(start.values())

    other_test = names(plan(spec="scenes?size=16&train=8&val=4&test=5"))
    changed = {key for key in start if other_test[key] != start[key]}
    assert changed == {key for key in start if key[1]}  # pretraining never sees the test split

    other_train = names(plan(spec="scenes?size=16&train=9&val=4&test=4"))
    assert {row for row, probe, _ in start if other_train[row, probe, 0] != start[row, probe, 0] and not probe} == {
        "supervised",
        "rotation",
    }

    tuned = names(plan(overrides={"rotation": {"learning_rate": 0.5}}))
    assert {row for row, _, _ in start if tuned[row, "a", 0] != start[row, "a", 0]} == {"rotation"}


def test_rows_can_learn_from_other_pictures_than_they_are_judged_with():
    other = "scenes?size=16&train=9&val=4&test=4&seed=3"
    planned, start = plan(learned=other), names(plan())
    assert {cell.data.spec for cell in planned.cells if cell.judge is None} == {other}
    assert {cell.data.spec for cell in planned.cells if cell.judge is not None} == {SPEC}
    found = names(planned)
    assert found["random", "a", 0] == start["random", "a", 0]  # random weights learn from nothing
    assert all(found[row, probe, 0] != start[row, probe, 0] for row in ROWS if row != "random" for probe in ("", "a"))
    text = suite.plan_text(planned, list(planned.cells), 1, 1.0)
    assert f"on {SPEC} (synthetic), trained on {other} (synthetic)" in text
    assert names(plan(learned=SPEC)) == start


def test_labels_are_wanted_of_what_is_learned_from():
    judged = open_data(SPEC, 16, bad_images="skip", download=False)
    bare = DataSource(spec="folder:photos", size=16, bad_images="skip", fingerprints=judged[0].fingerprints)
    planned = make_plan(recipe(), *judged, rows=ROWS, judges={"a": Constant()}, seeds=1, learned=(bare, Bare()))
    assert any(line.startswith("row supervised left out: folder:photos has no classes") for line in planned.left_out)
    assert "supervised" not in {cell.pretext for cell in planned.cells}
    assert "folder:photos: a note" in planned.notes


def test_a_new_version_of_the_code_computes_everything_anew(monkeypatch):
    start = names(plan())
    monkeypatch.setattr("benchmarks.cells.CODE", CODE + 1)
    assert not set(names(plan()).values()) & set(start.values())


def test_every_row_has_the_same_budget():
    with pytest.raises(ValueError, match="one budget"):
        recipe(overrides={"rotation": {"images": 99}})


def test_a_probe_without_its_annotations_is_left_out_with_the_reason():
    source = DataSource(
        spec="folder:photos", size=16, bad_images="skip", fingerprints=tuple((n, "f") for n in suite.SPLITS)
    )
    with pytest.raises(UserError, match="nothing is left to compare") as caught:
        make_plan(recipe(), source, Bare(), rows=ROWS, judges={"a": Constant(), "m": Masked()}, seeds=1)
    text = str(caught.value)
    assert "probe a left out: it needs label, and folder:photos annotates nothing" in text
    assert "put the pictures into class folders" in text
    assert "probe m left out: it needs masks" in text
    assert "row supervised left out" in text
    assert "what can be said without: --probes label_free nearest_fill inpainting" in text
    assert "\n" not in text


def test_only_rows_with_a_decoder_are_asked_to_fill_holes(monkeypatch):
    monkeypatch.setattr(suite, "_fills_holes", lambda task: task == "rotation")
    planned = plan({"inpainting": Inpainting()})
    assert [(cell.pretext, cell.probe) for cell in planned.cells] == [
        ("rotation", ""),
        ("rotation", "inpainting"),
    ]


def test_random_weights_and_rotation_have_no_decoder():
    assert not suite._fills_holes("rotation")


def test_a_foreign_encoder_is_one_file_judged_at_every_seed(tmp_path):
    file = tmp_path / "theirs.safetensors"
    file.write_bytes(b"one")
    planned = plan(rows={}, foreign={"theirs": str(file)}, seeds=2)
    assert [(cell.probe, cell.seed) for cell in planned.cells] == [
        ("", 0),
        ("a", 0),
        ("b", 0),
        ("a", 1),
        ("b", 1),
    ]
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"two")
    assert not {cell.name for cell in plan(rows={}, foreign={"theirs": str(other)}).cells} & {
        cell.name for cell in planned.cells
    }


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_every_profile_can_be_made_and_says_what_it_costs(name):
    made = PROFILES[name]()
    assert made.name == name
    assert "random" in made.rows
    assert "supervised" in made.rows
    assert {"linear", "knn", "segmentation", "retrieval", "inpainting"} <= set(made.probes)
    assert "Cost:" in PROFILES[name].__doc__
    assert "Expect" in PROFILES[name].__doc__


# The loop


@pytest.fixture
def quick(monkeypatch):
    """Replace computing by writing down the order; cells named in `bad` fail."""
    order: list[Cell] = []
    bad: set[tuple[str, str]] = set()

    def compute(cell, out):
        order.append(cell)
        if (cell.pretext, cell.probe) in bad:
            raise RuntimeError("bad")
        path = result_path(out, cell.name) if cell.judge else encoder_path(out, cell.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")

    monkeypatch.setattr(executor, "compute", compute)
    return order, bad


def go(planned, out, said=None):
    said = [] if said is None else said
    return run(
        planned.missing(out),
        out,
        InProcess(out),
        expected=Estimate(planned.recipe.expected_s, 1),
        progress=lambda *each: said.append(each),
    )


def test_encoders_come_first_then_the_longest(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(Estimate, "learn", lambda *given: None)  # on a busy machine the shortest may take longest
    order, _ = quick
    said: list = []
    assert go(plan(), tmp_path, said) == {}
    assert [bool(cell.judge) for cell in order] == [False] * 3 + [True] * 6
    assert [cell.probe for cell in order[3:]] == ["b"] * 3 + ["a"] * 3
    assert [left for _, _, left, _ in said] == list(range(8, -1, -1))
    assert said[-1][3] == 0.0


def test_nothing_is_computed_twice(tmp_path, quick):
    order, _ = quick
    planned = plan()
    go(planned, tmp_path)
    assert planned.missing(tmp_path) == []
    next(iter((tmp_path / "results").glob("rotation.a.*"))).unlink()
    before = len(order)
    go(planned, tmp_path)
    assert [(cell.pretext, cell.probe) for cell in order[before:]] == [("rotation", "a")]


def test_an_encoder_that_nobody_waits_for_is_not_made_again(tmp_path, quick):
    planned = plan()
    go(planned, tmp_path)
    for path in (tmp_path / "pretrain").rglob("*.safetensors"):
        path.unlink()
    assert planned.missing(tmp_path) == []


def test_a_failing_cell_is_written_down_and_the_rest_goes_on(tmp_path, quick):
    order, bad = quick
    bad.add(("rotation", "a"))
    planned = plan()
    planned.write(tmp_path, [])
    failures = go(planned, tmp_path)
    assert list(failures) == [names(planned)["rotation", "a", 0]]
    assert len(order) == 9
    (written,) = read_failures(tmp_path)
    assert written["error"] == "RuntimeError: bad"
    assert len(status(tmp_path)[1].failed) == 1

    bad.clear()  # the next run tries it once more
    assert go(planned, tmp_path) == {}
    assert [cell.name for cell in order[9:]] == list(failures)


def test_probes_of_an_encoder_that_failed_are_not_tried(tmp_path, quick):
    order, bad = quick
    bad.add(("rotation", ""))
    failures = go(plan(), tmp_path)
    assert len(failures) == 3
    assert sum("its encoder" in text for text in failures.values()) == 2
    assert not [cell for cell in order if cell.pretext == "rotation" and cell.judge]


def test_a_full_disk_ends_the_run_in_one_line(tmp_path, monkeypatch):
    def compute(cell, out):
        raise OSError(28, "No space left on device", "x.json")

    monkeypatch.setattr(executor, "compute", compute)
    with pytest.raises(UserError, match=r"x\.json: No space left on device"):
        go(plan(), tmp_path)
    assert not (tmp_path / "failures").exists()


def test_what_another_process_computes_is_waited_for(tmp_path, quick, monkeypatch):
    order, _ = quick
    monkeypatch.setattr(schedule, "BUSY_S", 0.0)
    planned = plan({"a": Constant()}, rows={"random": None})
    maker, judged = planned.cells
    lock = cell_lock(tmp_path, maker.name)
    assert lock.__enter__()
    assert is_locked(tmp_path, maker.name)
    assert run_cell(maker, tmp_path).state == "busy"

    started: list[str] = []
    real = InProcess.outcomes

    def outcomes(self, timeout):  # the other one ends after a while
        found = real(self, 0.0)
        started.extend(outcome.state for outcome in found)
        if len(started) == 3:
            encoder_path(tmp_path, maker.name).parent.mkdir(parents=True)
            encoder_path(tmp_path, maker.name).write_text("theirs")
            lock.__exit__(None, None, None)
        return found

    monkeypatch.setattr(InProcess, "outcomes", outcomes)
    assert go(planned, tmp_path) == {}
    assert started[:3] == ["busy"] * 3
    assert [cell.name for cell in order] == [judged.name]
    assert encoder_path(tmp_path, maker.name).read_text() == "theirs"


def test_the_lock_of_a_dead_process_is_free(tmp_path):
    code = (
        "import sys, os, signal; from pathlib import Path; from benchmarks.locks import cell_lock\n"
        "lock = cell_lock(Path(sys.argv[1]), 'c'); print(lock.__enter__(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    dead = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert dead.stdout.strip() == "True"
    assert dead.returncode == -signal.SIGKILL
    assert not is_locked(tmp_path, "c")
    with cell_lock(tmp_path, "c") as mine:
        assert mine


def test_results_of_other_settings_are_set_aside_and_other_seeds_kept(tmp_path):
    def compute_all(planned):
        return {cell.name for cell in planned.missing(tmp_path) if run_cell(cell, tmp_path).state == "done"}

    two = plan({"a": Constant()}, rows={"random": None}, seeds=2)
    compute_all(two)
    one = plan({"a": Constant()}, rows={"random": None}, seeds=1)
    assert set_aside(one, tmp_path) == []
    changed = plan({"a": Constant(value=3)}, rows={"random": None}, seeds=1)
    moved = set_aside(changed, tmp_path)
    assert sorted(moved) == sorted(cell.name for cell in two.cells if cell.judge)
    assert len(list((tmp_path / "superseded").iterdir())) == 2
    assert read_measurements(tmp_path) == []


def test_rows_that_are_not_asked_for_leave_a_column_that_is_asked_otherwise_now(tmp_path):
    def compute_all(planned):
        for cell in planned.missing(tmp_path):
            assert run_cell(cell, tmp_path).state == "done"

    def kept():
        return sorted((row.pretext, row.probe) for row in read_measurements(tmp_path))

    compute_all(plan({"a": Constant(), "b": Constant()}, rows={"random": None, "rotation": "rotation"}))
    again = plan({"a": Constant()}, rows={"random": None}, train=TrainConfig(images=16, batch_size=4))
    assert set_aside(again, tmp_path) == []  # asked the same: a budget of its own is shown beside it
    changed = plan({"a": Constant(value=3)}, rows={"random": None})
    assert [name.split(".")[:2] for name in set_aside(changed, tmp_path)] == [["random", "a"], ["rotation", "a"]]
    assert kept() == [("random", "b"), ("rotation", "b")]


def test_a_probe_s_name_with_options_is_set_aside_as_well(tmp_path):
    name = "mine?train_images=200"
    for cell in plan({name: Constant()}, rows={"random": None}).cells:
        assert run_cell(cell, tmp_path).state == "done"
    assert len(set_aside(plan({name: Constant(value=3)}, rows={"random": None}), tmp_path)) == 1


def test_the_estimate_learns():
    cells = plan(rows={"rotation": "rotation"}).cells
    maker, a, b = cells
    expected = Estimate({"pretrain": 100, "a": 10, "b": 20}, 2)
    assert expected.of_all(cells) == 100  # never under the longest
    assert expected.of_all([a, b]) == 20
    expected.learn(a, 5.0)  # half of what was told
    assert expected.of(a) == 5.0
    assert expected.of(b) == 10.0
    assert expected.of(maker) == 50.0
    expected.learn(b, 0.0)  # somebody else had done it
    assert expected.of(b) == 10.0


# Cells and workers, for real


def source():
    return open_data(SPEC, 16, bad_images="skip", download=False)[0]


def random_cells(**probes):
    maker = encoder_cell("random", seed=0, data=source(), encoder="alexnet?width=0.1&stem_stride=1")
    return maker, {name: judge_cell(maker, name, each, seed=0) for name, each in probes.items()}


def test_a_cell_s_rows_say_everything(tmp_path):
    maker, cells = random_cells(a=Constant(value=3))
    assert run_cell(maker, tmp_path).state == "done"
    assert run_cell(cells["a"], tmp_path).state == "done"
    (row,) = read_measurements(tmp_path)
    assert (row.cell, row.pretext, row.probe, row.metric, row.value) == (
        cells["a"].name,
        "random",
        "a",
        "top1",
        3.0,
    )
    assert (row.data, row.n, row.items, row.headline, row.seed) == (SPEC, 4, [3.0] * 4, True, 0)
    assert row.images_seen == 0
    assert row.peak_mem_bytes > 10e6
    assert len(row.encoder_sha256) == 64
    assert json.loads(row.config_json)["pretrain"] == maker.name


@pytest.mark.slow
def test_workers_outlive_what_fails_and_what_dies(tmp_path):
    maker, cells = random_cells(a=Constant(), b=Constant(mood="raise"), c=Constant(mood="die"))
    said: list[tuple[Cell, Outcome, int, float]] = []
    failures = run(
        [maker, *cells.values()],
        tmp_path,
        LocalProcesses(tmp_path, 1),
        expected=Estimate({"a": 1.0, "b": 2.0, "c": 3.0}, 1),
        progress=lambda *each: said.append(each),
    )
    assert set(failures) == {cells["b"].name, cells["c"].name}
    assert "SIGKILL" in failures[cells["c"].name]
    assert failures[cells["b"].name] == "RuntimeError: a bad day"
    assert [row.cell for row in read_measurements(tmp_path)] == [cells["a"].name]
    assert {failure["cell"] for failure in read_failures(tmp_path)} == set(failures)
    assert [cell.probe for cell, *_ in said] == ["", "c", "b", "a"]
