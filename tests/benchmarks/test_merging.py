"""Results folders of several machines become one: equal to the whole, with every conflict named."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
from comparison_samples import SPEC, changed, run_smoke

from benchmarks import run_all
from benchmarks.records.results import read_measurements, read_plan, write_json, write_plan
from benchmarks.summaries.costs import read_costs
from pretext.system.errors import UserError

TIMES = ("wall_s", "peak_mem_bytes", "started_at")


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    return tmp_path_factory.mktemp("halves")


@pytest.fixture
def halves(smoke, tmp_path, once):
    """Two folders that hold one plan between them; random weights and supervised training are in both."""
    if not any(once.iterdir()):
        run_smoke(once / "a", "--seeds", "2", "--probes", "linear")
        run_smoke(once / "b", "--seeds", "2", "--tasks", "supervised")
        run_smoke(once / "b", "--seeds", "2", "--probes", "segmentation")
    shutil.copytree(once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "a", tmp_path / "b"


def merge(*folders, out):
    return run_all.main(["merge", *map(str, folders), "--out", str(out)])


def csv_without_times(folder):
    with (folder / "results.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


def test_two_halves_are_the_whole(smoke, halves, tmp_path, capsys):
    run_smoke(smoke, "--seeds", "2")
    capsys.readouterr()
    assert merge(*halves, out=tmp_path / "c") == 0
    printed = capsys.readouterr().out
    assert "12 cells; 4 in several folders with equal values\n" in printed
    assert f"{halves[0]}: 6 cells, revision " in printed and "code 6" in printed
    assert csv_without_times(tmp_path / "c") == csv_without_times(smoke)
    assert len(csv_without_times(smoke)) == 12
    names = [{cell["name"] for cell in read_plan(folder)["cells"]} for folder in (tmp_path / "c", smoke)]
    assert names[0] == names[1]
    assert not list(tmp_path.glob(".c*"))


def test_a_merged_folder_is_one_like_any_other(smoke, halves, tmp_path, capsys):
    record = {"images_seen": 7, "wall_s": 2, "peak_mem_bytes": 9}
    (encoder,) = (halves[1] / "pretrain").glob("rotation.s1.*")
    write_json(encoder / "run.json", record)
    (log,) = (halves[1] / "results").glob("rotation.segmentation.s0.*")
    (halves[1] / "logs").mkdir(exist_ok=True)
    (halves[1] / "logs" / f"{log.stem}.log").write_text("what it printed")
    shutil.rmtree(halves[0] / "pretrain" / encoder.name)
    merge(*halves, out=tmp_path / "c")
    assert read_costs(tmp_path / "c", [])["rotation"].images_seen == 7
    assert (tmp_path / "c" / "logs" / f"{log.stem}.log").read_text() == "what it printed"
    capsys.readouterr()
    assert run_all.main(["status", "--out", str(tmp_path / "c")]) == 0
    assert "18 done, 0 running, 0 failed, 0 left" in capsys.readouterr().out
    assert run_all.main(["compare", str(halves[0]), str(tmp_path / "c")]) == 0
    assert "6 cells in common" in capsys.readouterr().out
    run_smoke(tmp_path / "c", "--seeds", "2")
    assert "18 cells, all done: nothing to compute" in capsys.readouterr().out


def test_the_encoder_of_a_row_that_no_plan_has_any_more_is_merged_too(halves, tmp_path):
    for half in halves:
        cells = [cell for cell in read_plan(half)["cells"] if cell["pretext"] != "rotation"]
        write_plan(half, read_plan(half) | {"cells": cells})
    merge(*halves, out=tmp_path / "c")
    found = {m.cell for m in read_measurements(tmp_path / "c") if m.pretext == "rotation"}
    assert found and [path.parent.name for path in (tmp_path / "c" / "pretrain").glob("rotation.*/encoder.safetensors")]


def test_the_folder_that_one_is_in_is_refused(halves, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match=r"--out \. is the folder that you are in; give a new one"):
        merge(*halves, out=".")


def test_a_cell_with_two_values_is_named_and_neither_is_lost(halves, tmp_path, capsys):
    cell = changed(halves[1], "supervised.linear.s1", value=77.0)
    assert merge(*halves, out=tmp_path / "c") == 0
    line = f"conflict in {cell}: top1 is 41.0 in {halves[0]} (counts) and 77.0 in {halves[1]}"
    assert line in capsys.readouterr().out.splitlines()
    assert line in read_plan(tmp_path / "c")["notes"]  # the report shows them
    assert [m.value for m in read_measurements(tmp_path / "c") if m.cell == cell] == [41.0]
    with (tmp_path / "c" / "conflicts.csv").open(newline="") as file:
        assert [(row["cell"], row["first"], row["other"]) for row in csv.DictReader(file)] == [(cell, "41.0", "77.0")]
    kept = json.loads((tmp_path / "c" / "conflicts" / "2" / f"{cell}.json").read_text())
    assert kept["measurements"][0]["value"] == 77.0
    merge(*reversed(halves), out=tmp_path / "d")
    assert f"top1 is 77.0 in {halves[1]} (counts) and 41.0 in {halves[0]}" in capsys.readouterr().out
    assert [m.value for m in read_measurements(tmp_path / "d") if m.cell == cell] == [77.0]


def test_two_encoders_of_one_name_with_other_weights_are_a_conflict(halves, tmp_path, capsys):
    changed(halves[1], "supervised.segmentation.s0", encoder_sha256="other")
    merge(*halves, out=tmp_path / "c")
    printed = capsys.readouterr().out
    assert "conflict in supervised.s0." in printed and f"and other in {halves[1]}" in printed


def test_a_failure_counts_until_a_folder_has_the_result(halves, tmp_path, capsys):
    name = changed(halves[0], "random.linear.s0")
    failed = changed(halves[1], "random.segmentation.s0")
    for cell in (name, failed):
        failure = {"cell": cell, "error": "E: it broke", "traceback": "T"}
        write_json(halves[1] / "failures" / f"{cell}.json", failure)
    (halves[1] / "results" / f"{failed}.json").unlink()
    merge(*halves, out=tmp_path / "c")
    assert [path.stem for path in (tmp_path / "c" / "failures").iterdir()] == [failed]
    assert run_all.main(["status", "--out", str(tmp_path / "c")]) == 1
    assert f"failed   {failed}: E: it broke" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--data", SPEC + "&seed=1"),
            r"differ in row random: trained on different pictures, of scenes\S+ and scenes\S+&seed=1; rows of one "
            r"table must be trained on the same --pretrain-data, and a run on another --data trains on that data",
        ),
        (("--budget", "images=16"), r"differ in row rotation: train\.images 8 and 16; one table cannot hold both"),
    ],
)
def test_what_does_not_belong_into_one_table_is_refused(smoke, tmp_path, flags, message):
    run_smoke(tmp_path / "a", "--probes", "linear")
    run_smoke(tmp_path / "b", "--probes", "linear", *flags)
    with pytest.raises(UserError, match=message):
        merge(tmp_path / "a", tmp_path / "b", out=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def bad_nothing(folder):
    shutil.rmtree(folder)


def bad_plan(folder):
    (folder / "plan.json").unlink()


def bad_results(folder):
    shutil.rmtree(folder / "results")


def bad_file(folder):
    next((folder / "results").glob("*.json")).write_text("{")


def bad_name(folder):
    path = next((folder / "results").glob("*.json"))
    path.rename(path.with_stem("random.linear.s7.00000000"))


def bad_settings(folder):
    changed(folder, "random.linear.s0", config_json="{}")


def bad_path(folder):
    plan = read_plan(folder)
    plan["cells"][0]["name"] = "../../../etc"
    write_json(folder / "plan.json", plan)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (bad_nothing, "b is not a folder"),
        (bad_plan, r"b: no plan\.json"),
        (bad_results, "b holds no results; leave it out, or run python benchmarks/run_all.py"),
        (bad_file, "not valid JSON"),
        (bad_name, r"results/\S+\.json holds another cell than its name says"),
        (bad_settings, r"b: the settings of random\.linear\.s0\.\w+ do not match its name"),
        (bad_path, r"'\.\./\.\./\.\./etc' is not the name of a cell"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_a_bad_folder_is_one_line_and_nothing_is_written(halves, tmp_path, spoil, message):
    spoil(halves[1])
    with pytest.raises(UserError, match=message) as caught:
        merge(*halves, out=tmp_path / "c")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "c").exists()


def test_bad_requests_are_one_line(halves, tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mine.txt").touch()
    for folders, message in (
        (halves, "c is not an empty folder; give a new one"),
        (halves[:1], "give two or more results folders"),
        ((halves[0], tmp_path / "b" / ".." / "a"), "is given twice"),
    ):
        out = tmp_path / ("c" if folders is halves else "d")
        with pytest.raises(UserError, match=message):
            merge(*folders, out=out)
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["mine.txt"]


def test_links_are_not_followed(halves, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (encoder,) = (halves[0] / "pretrain").glob("random.s0.*")
    (encoder / "link.txt").symlink_to(tmp_path / "secret")
    merge(*halves, out=tmp_path / "c")
    assert (tmp_path / "c" / "pretrain" / encoder.name / "encoder.safetensors").is_file()
    assert not (tmp_path / "c" / "pretrain" / encoder.name / "link.txt").exists()
