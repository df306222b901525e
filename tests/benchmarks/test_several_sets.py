"""Several judging sets in one comparison: the cells of single runs, in columns of their own."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
from comparison_samples import SPEC, InProcess, cell_names, plan, run_smoke
from dataset_samples import make

from benchmarks import run_all
from benchmarks.executors.computing import compute
from benchmarks.folders.merging import merge
from benchmarks.folders.submissions import read_submission
from benchmarks.leaderboard.entries import entries_of
from benchmarks.records.results import read_measurements, read_plan
from benchmarks.summaries.verdict import ranking, summarise
from benchmarks.words.columns import labels_of
from downstream.probes.knn import Knn
from pretext.system.errors import UserError

OTHER = "scenes?size=16&train=9&val=4&test=5&seed=3"
THIRD = "scenes?size=16&train=9&val=4&test=6&seed=4"
LABEL, OTHER_LABEL = "scenes train=8 test=4", "scenes train=9 test=5 seed=3"
TIMES = ("wall_s", "peak_mem_bytes", "started_at")


def several(out, *more):
    return run_smoke(out, "--data", SPEC, "--data", OTHER, *more)


def stored(folder):
    """Return the results files by name, without times."""
    files = {path.name: json.loads(path.read_text())["measurements"] for path in (folder / "results").iterdir()}
    return {n: [{k: v for k, v in m.items() if k not in TIMES} for m in rows] for n, rows in files.items()}


@pytest.mark.parametrize(
    ("specs", "labels"),
    [
        (["coco:/a/b/tiny?train=3"], [""]),
        (["scenes", "coco:/a/tiny", "masks:camvid/train?classes=x,y", "voc:~/mini/VOCdevkit"],
         ["scenes", "tiny", "camvid", "mini"]),
        (["folder:mine/photos", "folder:hers/photos/train"], ["mine/photos", "hers/photos"]),
        (["folder:photos", "coco:photos"], ["folder:photos", "coco:photos"]),
        (["scenes?size=8&seed=1", "scenes?size=8&seed=2"], ["scenes seed=1", "scenes seed=2"]),
        (["scenes?size=8", "scenes"], ["scenes size=8", "scenes"]),
        (["scenes?size=8", "scenes?size=8&seed=5"], ["scenes", "scenes seed=5"]),
        (["folder:train", "folder:data"], ["train", "data"]),
    ],
)  # fmt: skip
def test_labels_are_short_and_unique(specs, labels):
    assert [*labels_of(specs).values()] == labels


def test_a_set_given_twice_is_refused_before_it_is_opened(smoke, capsys):
    with pytest.raises(UserError, match=r"--data scenes\S+ is given twice; give each data set once"):
        run_smoke(smoke, "--data", SPEC, "--data", SPEC)
    assert "drawn pictures" not in capsys.readouterr().err


def test_the_cells_are_those_of_runs_with_one_set():
    both, own = plan(more=[OTHER], seeds=2), plan(seeds=2)
    other = plan(spec=OTHER, pretrain_data=SPEC, seeds=2)
    assert {cell.name for cell in both.cells} == {cell.name for cell in (*own.cells, *other.cells)}
    encoders = [cell for cell in both.cells if cell.protocol is None]
    assert {cell.name for cell in encoders} == {name for (_, probe, _), name in cell_names(own).items() if not probe}
    assert {cell.column for cell in both.cells if cell.protocol} == {
        f"{probe} on {label}" for probe in "ab" for label in (LABEL, OTHER_LABEL)
    }


def test_values_are_those_of_runs_with_one_set(tmp_path):
    probes = {"knn": Knn(ks=(1,))}
    changes = {"rows": {"rotation": "rotation"}}
    plans = {
        "both": plan(probes, more=[OTHER], **changes),
        "one": plan(probes, **changes),
        "other": plan(probes, spec=OTHER, pretrain_data=SPEC, **changes),
    }
    for name, planned in plans.items():
        for cell in planned.cells:
            compute(cell, tmp_path / name)
    both, one, other = (stored(tmp_path / name) for name in plans)
    assert len(both) == 2 and both == one | other


def test_a_table_has_a_column_for_each_set_and_ranks_over_all(smoke, capsys):
    assert several(smoke, "--seeds", "2") == 0
    printed = capsys.readouterr().out
    assert f"smoke on {SPEC} (synthetic) and {OTHER} (synthetic), trained on {SPEC}" in printed
    assert f"probes: linear, segmentation on {LABEL}; linear, segmentation on {OTHER_LABEL}" in printed
    assert f"on {LABEL}" in [line[: len(LABEL) + 3] for line in printed.splitlines()]
    assert "Mean rank over 4 probes on 2 data sets: " in printed
    found = read_measurements(smoke)
    columns = [f"{probe} on {label}" for label in (LABEL, OTHER_LABEL) for probe in ("linear", "segmentation")]
    assert [*dict.fromkeys(s.probe for s in summarise(found))] == columns
    assert ranking(summarise(found)).probes == tuple(columns)
    assert {(m.probe.partition(" on ")[2], m.data) for m in found} == {(LABEL, SPEC), (OTHER_LABEL, OTHER)}
    with (smoke / "results.csv").open(newline="") as file:
        assert {row["probe"] for row in csv.DictReader(file)} == {*columns}


def test_the_plan_lists_several_sets_and_names_one(smoke):
    several(smoke)
    run_smoke(smoke.with_name("one"))
    listed, one = read_plan(smoke), read_plan(smoke.with_name("one"))
    assert (listed["data"], listed["pretrain_data"]) == ([SPEC, OTHER], SPEC)
    assert listed["synthetic_sets"] == [SPEC, OTHER] and listed["synthetic"]
    assert (one["data"], one["probes"]) == (SPEC, ["linear", "segmentation"])
    assert "synthetic_sets" not in one


def test_a_probe_is_left_out_on_the_sets_that_do_not_allow_it(smoke, tmp_path, capsys):
    bare = make("folder", tmp_path / "photos")
    assert run_smoke(smoke, "--data", SPEC, "--data", bare) == 0
    printed = capsys.readouterr().out
    assert f"probe segmentation left out: it needs masks, and {bare} annotates label" in printed
    assert "probes: linear, segmentation on scenes; linear on photos" in printed
    assert "Drawn pictures in scenes; results may not transfer" in printed
    assert read_plan(smoke)["synthetic"] is False and read_plan(smoke)["synthetic_sets"] == [SPEC]


def test_a_folder_of_one_set_may_get_another_and_keeps_its_results(smoke, capsys, monkeypatch):
    run_smoke(smoke)
    before, started = stored(smoke), []
    start = InProcess.start
    monkeypatch.setattr(InProcess, "start", lambda self, cell: (started.append(cell.data.spec), start(self, cell)))
    several(smoke)
    assert {*started} == {OTHER} and not (smoke / "superseded").exists()
    assert before.items() <= stored(smoke).items()
    several(smoke)
    assert "nothing to compute" in capsys.readouterr().out.rpartition("profile smoke")[2]
    with pytest.raises(UserError, match=r"holds profile smoke on scenes\S+ and scenes\S+, trained on .*, not smoke on"):
        run_smoke(smoke)
    with pytest.raises(UserError, match="give another --out"):
        run_smoke(smoke, "--data", OTHER, "--data", SPEC)  # it would train on the other set


def test_results_of_other_settings_are_superseded_in_their_column_only(smoke):
    several(smoke)
    path = next((smoke / "results").glob("rotation.linear.s0.*"))
    shutil.copy(path, path.with_stem("rotation.linear.s0.00000000"))
    content = json.loads(path.read_text())
    for each in content["measurements"]:
        each |= {"cell": "rotation.linear.s0.00000000", "config_json": "{}"}
    path.with_stem("rotation.linear.s0.00000000").write_text(json.dumps(content))
    several(smoke)
    assert [each.name for each in (smoke / "superseded").iterdir()] == ["rotation.linear.s0.00000000.json"]
    assert len([*(smoke / "results").iterdir()]) == 3 * 2 * 2


def test_the_other_commands_take_such_a_folder(smoke, capsys):
    several(smoke, "--seeds", "2")
    capsys.readouterr()
    assert run_all.main(["status", "--out", str(smoke)]) == 0
    assert f"smoke on {SPEC} and {OTHER}" in capsys.readouterr().out
    assert run_all.main(["compare", "rotation", "random", "--out", str(smoke)]) == 0
    assert f"linear on {OTHER_LABEL} top1 %" in capsys.readouterr().out
    for cell in {m.cell for m in read_measurements(smoke) if m.pretext == "rotation" and m.probe.startswith("linear")}:
        assert run_all.main(["reproduce", cell, "--out", str(smoke)]) == 0
        assert "reproduced bit for bit" in capsys.readouterr().out
    assert run_all.main(["clean", "--out", str(smoke)]) == 0
    assert run_all.main(["leaderboard", str(smoke), "--out", str(smoke / "site")]) == 0
    entries = entries_of([read_submission(smoke)])
    assert {(each.summary.probe, each.cells[0].data) for each in entries} == {
        (probe, spec) for probe in ("linear", "segmentation") for spec in (SPEC, OTHER)
    }


def test_compare_finds_the_cells_of_a_run_with_one_set(smoke, tmp_path, capsys):
    several(smoke)
    run_smoke(tmp_path / "other", "--data", OTHER, "--pretrain-data", SPEC)
    capsys.readouterr()
    assert run_all.main(["compare", str(smoke), str(tmp_path / "other")]) == 0
    printed = capsys.readouterr().out
    assert "6 cells in common" in printed and "6 identical" in printed
    assert f"only in A: 6 cells: probe linear on {LABEL} (3) and probe segmentation on {LABEL} (3)" in printed


@pytest.mark.slow
def test_a_run_of_several_sets_merges_with_one_of_a_single_set(smoke, tmp_path):
    several(smoke)
    run_smoke(tmp_path / "again", "--data", OTHER, "--pretrain-data", SPEC)
    run_smoke(tmp_path / "third", "--data", THIRD, "--pretrain-data", SPEC)
    merged = merge([smoke, tmp_path / "again", tmp_path / "third"], tmp_path / "all")
    assert (len(merged.chosen), merged.equal, merged.conflicts) == (18, 6, [])
    found = read_plan(tmp_path / "all")
    assert found["data"] == [SPEC, OTHER, THIRD] == found["synthetic_sets"]
    assert len(found["probes"]) == 6 and {m.probe for m in read_measurements(tmp_path / "all")} == {*found["probes"]}
    run_all.finish(tmp_path / "all")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--data", THIRD), "differ in row random: trained on different pictures"),
        (("--data", OTHER, "--pretrain-data", SPEC, "--budget", "images=16"), r"row rotation: train\.images"),
    ],
)
def test_a_set_judged_on_other_encoders_is_refused(smoke, tmp_path, flags, message):
    several(smoke)
    run_smoke(tmp_path / "b", *flags)
    with pytest.raises(UserError, match=message):
        merge([smoke, tmp_path / "b"], tmp_path / "c")
