"""The plan: its cells and their hashes, what is left out, and which results are superseded."""

from __future__ import annotations

from collections import Counter

import pytest
from comparison_samples import ROWS, SPEC, Constant, Masked, cell_names, plan, recipe

from benchmarks.executors.base import run_cell
from benchmarks.folders.superseded import move_superseded, restore
from benchmarks.planning import making
from benchmarks.planning.cells import CODE, DataSource, Inpainting
from benchmarks.planning.making import Judging, make_plan, open_data
from benchmarks.planning.plan import plan_text
from benchmarks.planning.probes import with_label_free
from benchmarks.planning.recipes import PROFILES
from benchmarks.planning.rows import by_name
from benchmarks.records.results import read_measurements
from benchmarks.summaries.costs import read_costs
from pretext.datasets.base import ImageDataset
from pretext.system.errors import UserError
from pretext.tasks import task_class
from pretext.training.config import TrainConfig


class Bare(ImageDataset):
    """Images without annotations."""

    spec = "folder:photos"
    notes = ("a note",)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise IndexError

    fingerprint = "bare"


def test_cells_are_rows_by_probes_by_seeds_after_the_encoder_of_their_row_and_seed():
    planned = plan(seeds=2)
    assert Counter(bool(cell.protocol) for cell in planned.cells) == {False: 3 * 2, True: 3 * 2 * 2}
    by_name = {cell.name: cell for cell in planned.cells}
    assert len(by_name) == len(planned.cells)
    for cell in planned.cells:
        if cell.protocol is not None:
            encoder = by_name[cell.made_by]
            assert (encoder.pretext, encoder.seed, encoder.protocol) == (cell.pretext, cell.seed, None)
            assert cell.protocol.seed == cell.seed
        if cell.train is not None:
            assert cell.train.seed == cell.seed


def test_names_can_be_read():
    planned = plan(rows={"rotation": "rotation"})
    encoder, first, _ = planned.cells
    assert encoder.name[:-8] == "rotation.s0."
    assert first.name[:-8] == "rotation.a.s0."


def test_a_hash_covers_what_the_value_depends_on_and_nothing_else(monkeypatch):
    start = cell_names(plan())
    assert cell_names(plan()) == start
    more = cell_names(plan(seeds=3))
    assert {key: more[key] for key in start} == start  # more seeds leave the first one's cells alone

    longer = cell_names(plan(train=TrainConfig(images=16, batch_size=4)))
    assert longer["random", "a", 0] == start["random", "a", 0]  # random weights take no steps
    assert longer["rotation", "", 0] != start["rotation", "", 0]
    assert longer["rotation", "a", 0] != start["rotation", "a", 0]

    other_probe = cell_names(plan({"a": Constant(value=5), "b": Constant(value=2)}))
    changed = {key for key in start if other_probe[key] != start[key]}
    assert changed == {(row, "a", 0) for row in ROWS}

    with monkeypatch.context() as patch:
        patch.setattr(Constant, "revision", 1)
        changed = {key for key, name in cell_names(plan()).items() if start[key] != name}
        assert changed == {(row, probe, 0) for row in ROWS for probe in ("a", "b")}
    with monkeypatch.context() as patch:
        patch.setattr(task_class("rotation"), "revision", 1)
        changed = {key for key, name in cell_names(plan()).items() if start[key] != name}
        assert changed == {("rotation", probe, 0) for probe in ("", "a", "b")}

    other_encoder = cell_names(plan(encoder="alexnet?width=0.2&stem_stride=1"))
    assert not set(other_encoder.values()) & set(start.values())

    other_test = cell_names(plan(spec="scenes?size=16&train=8&val=4&test=5"))
    changed = {key for key in start if other_test[key] != start[key]}
    assert changed == {key for key in start if key[1]}  # pretraining never sees the test split

    other_train = cell_names(plan(spec="scenes?size=16&train=9&val=4&test=4"))
    assert {row for row, probe, _ in start if other_train[row, probe, 0] != start[row, probe, 0] and not probe} == {
        "random",
        "supervised",
        "rotation",
    }  # random weights too: batch normalisation sees the training images

    tuned = cell_names(plan(training={"rotation": {"learning_rate": 0.5}}))
    assert {row for row, _, _ in start if tuned[row, "a", 0] != start[row, "a", 0]} == {"rotation"}


def test_rows_can_be_trained_on_other_data_than_their_probes():
    other = "scenes?size=16&train=9&val=4&test=4&seed=3"
    planned, start = plan(pretrain_data=other), cell_names(plan())
    assert {cell.data.spec for cell in planned.cells if cell.protocol is None} == {other}
    assert {cell.data.spec for cell in planned.cells if cell.protocol is not None} == {SPEC}
    found = cell_names(planned)
    assert all(found[row, probe, 0] != start[row, probe, 0] for row in ROWS for probe in ("", "a"))
    text = plan_text(planned, list(planned.cells), 1, 1.0)
    assert f"on {SPEC} (synthetic), trained on {other} (synthetic)" in text
    assert cell_names(plan(pretrain_data=SPEC)) == start


def test_supervised_rows_need_labels_in_the_training_data():
    probe_data = open_data(SPEC, 16, bad_images="skip", download=False)
    bare = DataSource(spec="folder:photos", size=16, bad_images="skip", fingerprints=probe_data[0].fingerprints)
    judged = [Judging(*probe_data, {"a": Constant()})]
    planned = make_plan(recipe(), judged, rows=recipe().rows, seeds=1, pretrain_data=(bare, Bare()))
    assert any(line.startswith("row supervised left out: folder:photos has no classes") for line in planned.left_out)
    assert "supervised" not in {cell.pretext for cell in planned.cells}
    assert "folder:photos: a note" in planned.notes


def test_a_new_version_of_the_code_computes_everything_again(monkeypatch):
    start = cell_names(plan())
    monkeypatch.setattr("benchmarks.planning.cells.CODE", CODE + 1)
    assert not set(cell_names(plan()).values()) & set(start.values())


def test_every_row_has_the_same_budget():
    with pytest.raises(ValueError, match="one budget"):
        recipe(training={"rotation": {"images": 99}})


def test_a_probe_without_its_annotations_is_left_out_with_the_reason():
    source = DataSource(
        spec="folder:photos", size=16, bad_images="skip", fingerprints=tuple((n, "f") for n in making.SPLITS)
    )
    with pytest.raises(UserError, match="nothing is left to compare") as caught:
        probes = {"a": Constant(), "b": Constant(), "m": Masked()}
        make_plan(recipe(), [Judging(source, Bare(), probes)], rows=recipe().rows, seeds=1)
    text = str(caught.value)
    assert "probes a and b left out: they need label, and folder:photos annotates nothing" in text
    assert "sort the images into one folder per class" in text
    assert "probe m left out: it needs masks" in text
    assert "row supervised left out" in text
    assert "probes that need no labels: --probes label_free nearest_fill inpainting" in text
    assert "\n" not in text


def test_data_without_labels_is_judged_by_the_probes_that_need_none():
    given = {"linear": Constant(), "nearest_fill": Constant(value=3)}
    found = with_label_free(given, Bare())
    assert [*found] == ["label_free", "nearest_fill", "inpainting", "linear"]
    assert found["nearest_fill"] == given["nearest_fill"]  # the profile's own
    _, labelled = open_data(SPEC, 16, bad_images="skip", download=False)
    assert with_label_free(given, labelled) == given


def test_a_row_that_no_probe_judges_is_said():
    planned = plan({"inpainting": Inpainting()}, rows=ROWS | {"autoencoder": "autoencoder"})
    assert {cell.pretext for cell in planned.cells} == {"autoencoder"}
    said = [text for text in planned.left_out if text.endswith("none of the probes judges it")]
    assert [text.split()[1] for text in said] == [*ROWS]


def test_only_rows_with_a_decoder_have_an_inpainting_cell(monkeypatch):
    monkeypatch.setattr(making, "_fills_holes", lambda task: task == "rotation")
    planned = plan({"inpainting": Inpainting()})
    assert [(cell.pretext, cell.probe) for cell in planned.cells] == [
        ("rotation", ""),
        ("rotation", "inpainting"),
    ]


def test_random_weights_and_rotation_have_no_decoder():
    assert not making._fills_holes("rotation")


def test_an_external_encoder_is_one_file_with_its_probes_at_every_seed(tmp_path):
    file = tmp_path / "theirs.safetensors"
    file.write_bytes(b"one")
    planned = plan(rows={}, sources={"theirs": str(file)}, seeds=2)
    assert [(cell.probe, cell.seed) for cell in planned.cells] == [
        ("", 0),
        ("a", 0),
        ("b", 0),
        ("a", 1),
        ("b", 1),
    ]
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"two")
    assert not {cell.name for cell in plan(rows={}, sources={"theirs": str(other)}).cells} & {
        cell.name for cell in planned.cells
    }


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_every_profile_can_be_made_and_says_what_it_costs(name):
    made = PROFILES[name]()
    assert made.name == name
    assert {"random", "supervised"} <= {*by_name(made.rows)}
    assert {"linear", "knn", "segmentation", "retrieval", "inpainting"} <= set(made.probes)
    assert "Cost:" in PROFILES[name].__doc__
    assert "Expect" in PROFILES[name].__doc__


def test_results_of_outdated_settings_are_moved_and_other_seeds_kept(tmp_path):
    def compute_all(planned):
        return {cell.name for cell in planned.missing(tmp_path) if run_cell(cell, tmp_path).state == "done"}

    two = plan({"a": Constant()}, rows={"random": "random"}, seeds=2)
    compute_all(two)
    one = plan({"a": Constant()}, rows={"random": "random"}, seeds=1)
    assert move_superseded(one, tmp_path) == []
    changed = plan({"a": Constant(value=3)}, rows={"random": "random"}, seeds=1)
    moved = move_superseded(changed, tmp_path)
    assert sorted(moved) == sorted(cell.name for cell in two.cells if cell.protocol)
    assert len(list((tmp_path / "superseded").iterdir())) == 2
    assert read_measurements(tmp_path) == []


def test_other_rows_leave_a_column_whose_protocol_has_changed(tmp_path):
    def compute_all(planned):
        for cell in planned.missing(tmp_path):
            assert run_cell(cell, tmp_path).state == "done"

    def kept():
        return sorted((row.pretext, row.probe) for row in read_measurements(tmp_path))

    compute_all(plan({"a": Constant(), "b": Constant()}, rows={"random": "random", "rotation": "rotation"}))
    again = plan({"a": Constant()}, rows={"random": "random"}, train=TrainConfig(images=16, batch_size=4))
    assert move_superseded(again, tmp_path) == []  # the same protocol; another budget is shown beside the row
    changed = plan({"a": Constant(value=3)}, rows={"random": "random"})
    assert [name.split(".")[:2] for name in move_superseded(changed, tmp_path)] == [["random", "a"], ["rotation", "a"]]
    assert kept() == [("random", "b"), ("rotation", "b")]


@pytest.mark.parametrize(
    ("other", "left"),
    [
        ({"encoder": "alexnet?width=0.2&stem_stride=1"}, []),
        ({"pretrain_data": "scenes?size=16&train=9&val=4&test=4"}, []),
        ({"train": TrainConfig(images=16, batch_size=4)}, [("random", "a"), ("random", "b")]),
    ],
    ids=["architecture", "training data", "budget of the row"],
)
def test_a_table_mixes_no_encoders_and_nothing_is_computed_twice(tmp_path, other, left):
    before = plan(rows={"random": "random", "rotation": "rotation"})
    for cell in before.missing(tmp_path):
        assert run_cell(cell, tmp_path).state == "done"
    after = plan({"a": Constant()}, rows={"rotation": "rotation"}, **other)
    moved = {tuple(name.split(".")[:2]) for name in move_superseded(after, tmp_path)}
    assert moved == {("random", "a"), ("random", "b"), ("rotation", "a"), ("rotation", "b")} - {*left}
    assert sorted((row.pretext, row.probe) for row in read_measurements(tmp_path)) == left
    assert before.missing(tmp_path) == []  # what was moved away waits for its plan
    assert {tuple(name.split(".")[:2]) for name in restore(before, tmp_path)} == moved
    assert len(read_measurements(tmp_path)) == 4 and move_superseded(before, tmp_path) == []


def test_a_row_of_an_earlier_plan_keeps_its_cost(tmp_path):
    for cell in plan(rows={"random": "random", "rotation": "rotation"}).missing(tmp_path):
        assert run_cell(cell, tmp_path).state == "done"
    plan(rows={"random": "random"}).write(tmp_path, [])
    assert read_costs(tmp_path, read_measurements(tmp_path))["rotation"].images_seen == 8


def test_results_of_a_probe_with_options_in_its_name_are_moved_too(tmp_path):
    name = "mine?train_images=200"
    for cell in plan({name: Constant()}, rows={"random": "random"}).cells:
        assert run_cell(cell, tmp_path).state == "done"
    assert len(move_superseded(plan({name: Constant(value=3)}, rows={"random": "random"}), tmp_path)) == 1
