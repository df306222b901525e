"""Folders judged on different data sets become one, equal to a run of one command on all of them."""

from __future__ import annotations

import csv
import json
import shutil
import zlib

import numpy as np
import pytest
from comparison_samples import SPEC, Constant, changed, run_smoke
from dataset_samples import make

from benchmarks import run_all
from benchmarks.executors import computing
from benchmarks.folders.merging import merge
from benchmarks.records.results import failure_path, read_measurements, read_plan, write_json
from benchmarks.summaries.verdict import summarise
from pretext.encoders import build_encoder, save_encoder
from pretext.judging import Score
from pretext.system.errors import UserError

pytestmark = pytest.mark.slow

OTHER = "scenes?size=16&train=9&val=4&test=5&seed=3"
THIRD = "scenes?size=16&train=9&val=4&test=6&seed=4"
SAME_TEST = "scenes?size=16&train=9&val=4&test=4"
"""A set with the test pictures of SPEC."""
LABEL, OTHER_LABEL = "scenes train=8 test=4", "scenes train=9 test=5 seed=3"
TIMES = ("wall_s", "peak_mem_bytes", "started_at")
FACTS = ("profile", "data", "pretrain_data", "pretrain_synthetic", "synthetic", "synthetic_sets", "rows", "probes",
         "seeds", "image_size", "encoder", "left_out")  # fmt: skip
"""What plan.json says of a comparison, beside its cells, notes and command."""


@pytest.fixture
def varied(smoke, monkeypatch):
    """Encoders that differ between rows, and a value per test picture that depends on encoder, pictures and seed."""

    def evaluate(self, encoder, data, out=None):
        weights = next(encoder.parameters()).detach().numpy().tobytes()
        pictures = data.split("test")
        rng = np.random.default_rng([zlib.crc32(weights), zlib.crc32(pictures.fingerprint.encode()), self.seed])
        items = self.value + zlib.crc32(weights) % 50 + rng.normal(0, 1, len(pictures))
        yield Score("top1", float(items.mean()), "%", True, 10.0, len(items), headline=True, items=items)

    def make_encoder(cell, out):
        encoder = build_encoder(cell.encoder, input_size=cell.data.size, seed=zlib.crc32(cell.pretext.encode()))
        save_encoder(encoder, computing.encoder_path(out, cell.name), {"images_seen": 8, "data": cell.data.spec})

    monkeypatch.setattr(Constant, "evaluate", evaluate)
    monkeypatch.setattr(computing, "_make_encoder", make_encoder)
    return smoke


def run(folder, *specs, more=()):
    """Run the smoke profile on data sets, with rows trained on SPEC."""
    data = [word for spec in specs for word in ("--data", spec)]
    trained = () if specs[0] == SPEC or "--pretrain-data" in more else ("--pretrain-data", SPEC)
    return run_smoke(folder, *data, *trained, *more)


def merged_by_command(out, *folders):
    return run_all.main(["merge", *map(str, folders), "--out", str(out)])


def table(path):
    """Return a CSV file without times."""
    with path.open(newline="") as file:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]


def stored(folder):
    """Return the measurements by cell, as files hold them, without times."""
    files = {path.stem: json.loads(path.read_text())["measurements"] for path in (folder / "results").iterdir()}
    return {n: [{k: v for k, v in m.items() if k not in TIMES} for m in rows] for n, rows in files.items()}


@pytest.mark.parametrize(
    "specs", [(SPEC, OTHER), pytest.param((OTHER, SPEC), marks=pytest.mark.slow)], ids=["own first", "other first"]
)
def test_runs_on_two_sets_are_one_run_on_both(varied, tmp_path, capsys, specs):
    seeds = ("--seeds", "2")
    run(varied, *specs, more=seeds)
    whole = capsys.readouterr().out
    for name, spec in zip("ab", specs, strict=True):
        run(tmp_path / name, spec, more=seeds)
    capsys.readouterr()
    assert merged_by_command(tmp_path / "c", tmp_path / "a", tmp_path / "b") == 0
    printed = capsys.readouterr().out
    assert "24 cells; 0 in several folders with equal values" in printed
    assert stored(tmp_path / "c") == stored(varied)
    for name in ("results.csv", "summary.csv"):
        assert table(tmp_path / "c" / name) == table(varied / name)
    assert {row["probe"] for row in table(tmp_path / "c" / "results.csv")} == {
        f"{probe} on {label}" for probe in ("linear", "segmentation") for label in (LABEL, OTHER_LABEL)
    }
    tables = [text[text.index("Mean rank over 4 probes on 2 data sets: ") :] for text in (whole, printed)]
    assert tables[0].replace(str(varied), "OUT") == tables[1].replace(str(tmp_path / "c"), "OUT")
    wanted, plan = read_plan(varied), read_plan(tmp_path / "c")
    about = [f"{tmp_path / name}: 12 cells, " for name in "ab"]
    assert [note[: len(about[0])] for note in plan.pop("notes")] == about and not wanted.pop("notes")
    assert {key: plan.get(key) for key in FACTS} == {key: wanted.get(key) for key in FACTS}
    cells = [{cell["name"]: cell for cell in each["cells"]} for each in (plan, wanted)]
    assert cells[0] == cells[1]


def test_the_merged_folder_works_like_any_other(varied, tmp_path, capsys):
    for name, spec in (("a", SPEC), ("b", OTHER), ("c", THIRD)):
        run(tmp_path / name, spec)
    merge([tmp_path / "a", tmp_path / "b"], varied)
    capsys.readouterr()
    assert run_all.main(["status", "--out", str(varied)]) == 0
    printed = capsys.readouterr().out
    assert f"smoke on {SPEC} and {OTHER}" in printed and "15 done, 0 running, 0 failed, 0 left" in printed
    run(varied, SPEC, OTHER)
    assert "15 cells, all done: nothing to compute" in capsys.readouterr().out
    assert not (varied / "superseded").exists()
    (cell,) = (path.stem for path in (varied / "results").glob("rotation.linear.*") if OTHER in path.read_text())
    assert run_all.main(["reproduce", cell, "--out", str(varied)]) == 0
    assert "reproduced bit for bit" in capsys.readouterr().out
    assert run_all.main(["compare", str(varied), str(tmp_path / "b")]) == 0
    assert "6 cells in common" in capsys.readouterr().out
    merge([varied, tmp_path / "c"], tmp_path / "all")
    run(tmp_path / "all", SPEC, OTHER, THIRD)
    assert "21 cells, all done: nothing to compute" in capsys.readouterr().out
    assert len({m.probe for m in read_measurements(tmp_path / "all")}) == 6


def test_a_set_that_both_folders_have_is_merged_by_its_values(varied, tmp_path):
    run(tmp_path / "a", SPEC, OTHER)
    run(tmp_path / "b", OTHER, THIRD)
    found = merge([tmp_path / "a", tmp_path / "b"], varied)
    assert (len(found.chosen), found.equal, found.conflicts) == (18, 6, [])
    assert read_plan(varied)["data"] == [SPEC, OTHER, THIRD]
    (name,) = (name for name in stored(tmp_path / "a").keys() & stored(tmp_path / "b") if "random.linear" in name)
    changed(tmp_path / "b", name, value=77.0)
    found = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    assert [(each.cell, each.metric, each.other) for each in found.conflicts] == [(name, "top1", 77.0)]


def test_sets_whose_names_collide_have_more_of_their_path(varied, tmp_path):
    for shade, name in enumerate(("mine", "hers")):
        spec = make("folder", tmp_path / name / "photos", shade)
        run(tmp_path / name[0], spec, more=("--probes", "linear"))
    merge([tmp_path / "m", tmp_path / "h"], varied)
    columns = ["linear on mine/photos", "linear on hers/photos"]
    assert read_plan(varied)["probes"] == columns
    assert [*dict.fromkeys(s.probe for s in summarise(read_measurements(varied)))] == columns


def test_sets_that_would_share_files_are_refused(varied, tmp_path):
    for shade, name in enumerate(("my photos", "my-photos")):
        run(tmp_path / str(shade), make("folder", tmp_path / name, shade), more=("--probes", "linear"))
    with pytest.raises(UserError, match="data sets 'my photos' and 'my-photos' would share the files of 'my-photos'"):
        merge([tmp_path / "0", tmp_path / "1"], varied)
    assert not varied.exists()


def test_a_set_of_two_names_is_not_the_one_with_the_same_test_pictures(varied, tmp_path):
    run(tmp_path / "a", SPEC, more=("--probes", "linear"))
    run(tmp_path / "b", SAME_TEST, more=("--probes", "linear"))
    run(tmp_path / "c", SPEC + "&seed=0", more=("--probes", "segmentation"))
    merge([tmp_path / each for each in "abc"], varied)
    own, twin = (f"scenes train={count}" for count in (8, 9))
    assert read_plan(varied)["data"] == [SPEC, SAME_TEST]
    found = read_measurements(varied)
    assert {m.probe for m in found} == {f"linear on {own}", f"segmentation on {own}", f"linear on {twin}"}
    assert {m.data for m in found if m.probe.startswith("segmentation")} == {SPEC + "&seed=0"}


def test_a_failure_on_one_set_stays_to_be_computed(varied, tmp_path, capsys):
    for name, spec in (("a", SPEC), ("b", OTHER)):
        run(tmp_path / name, spec)
    (path,) = (tmp_path / "b" / "results").glob("rotation.linear.*")
    path.unlink()
    write_json(failure_path(tmp_path / "b", path.stem), {"cell": path.stem, "error": "E: it broke", "traceback": "T"})
    merge([tmp_path / "a", tmp_path / "b"], varied)
    capsys.readouterr()
    assert run_all.main(["status", "--out", str(varied)]) == 1
    assert f"failed   {path.stem}: E: it broke" in capsys.readouterr().out
    assert run(varied, SPEC, OTHER) == 0
    assert "15 cells, 14 done; 1 to compute" in capsys.readouterr().out


def test_a_row_that_one_set_judges_is_not_left_out(varied, tmp_path):
    run(tmp_path / "a", SPEC, more=("--probes", "linear"))
    run(tmp_path / "b", OTHER, more=("--probes", "linear"))
    said = ["row rotation left out: none of the probes judges it", "row new left out: none of the probes judges it"]
    write_json(tmp_path / "b" / "plan.json", read_plan(tmp_path / "b") | {"left_out": said})
    merge([tmp_path / "a", tmp_path / "b"], varied)
    left_out = read_plan(varied)["left_out"]
    assert said[1] in left_out and said[0] not in left_out


def test_notes_name_their_set_as_those_of_one_command_do(varied, tmp_path):
    photos = make("folder", tmp_path / "photos")
    shutil.rmtree(tmp_path / "photos" / "val")
    only = ("--probes", "linear")
    run_smoke(tmp_path / "whole", "--data", photos, "--data", SPEC, *only)
    run_smoke(tmp_path / "a", "--data", photos, *only)
    run_smoke(tmp_path / "b", "--data", SPEC, "--pretrain-data", photos, *only)
    merge([tmp_path / "a", tmp_path / "b"], varied)
    whole, notes = (read_plan(folder)["notes"] for folder in (tmp_path / "whole", varied))
    assert whole and all(note.startswith(f"{photos}: ") for note in whole)
    assert notes[:-2] == whole and ["computed by: python" in note for note in notes[-2:]] == [True, True]


def photos_that_change(tmp_path):
    for shade, name in enumerate("ab"):
        shutil.rmtree(tmp_path / "photos", ignore_errors=True)
        run(tmp_path / name, make("folder", tmp_path / "photos", shade))


def one_folder_with_two_encoders_of_a_row(tmp_path):
    run(tmp_path / "a", SPEC, more=("--probes", "linear"))
    run(tmp_path / "a", SPEC, more=("--probes", "segmentation", "--budget", "images=16"))
    for path in (tmp_path / "a" / "superseded").glob("rotation.*"):  # a folder of an earlier version holds both
        path.rename(tmp_path / "a" / "results" / path.name)
    run(tmp_path / "b", OTHER)


def other_image_size(tmp_path):
    run(tmp_path / "a", SPEC)
    run(tmp_path / "b", OTHER, more=("--image-size", "20"))


def other_training_pictures(tmp_path):
    run(tmp_path / "a", SPEC)
    run(tmp_path / "b", OTHER, more=("--pretrain-data", OTHER))


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (photos_that_change, r"a and \S+b differ in data folder:\S+photos: different pictures; one table cannot hold"),
        (
            one_folder_with_two_encoders_of_a_row,
            r"cells of \S+a differ in row rotation: train\.images \d+ and \d+; one",
        ),
        (
            other_image_size,
            r"a and \S+b differ in row random: image_size 16 and 20; one table cannot hold both; leader",
        ),
        (
            other_training_pictures,
            r"a and \S+b differ in row random: trained on different pictures, of scenes\S+ and scenes\S+; rows of one "
            r"table must be trained on the same --pretrain-data, and a run on another --data trains on that data "
            r"unless --pretrain-data is given; leaderboard shows both on one page",
        ),
    ],
)
def test_what_differs_is_said_in_one_line(varied, tmp_path, compute, message):
    compute(tmp_path)
    with pytest.raises(UserError, match=message) as refused:
        merge([tmp_path / "a", tmp_path / "b"], varied)
    assert "\n" not in str(refused.value) and not varied.exists()
