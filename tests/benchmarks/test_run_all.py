"""The command: what it prints and writes, what it computes again; and, slowly, that it survives being killed."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from comparison_samples import InProcess, run_smoke
from report_samples import three_rows

from benchmarks import report, run_all
from benchmarks.options import Options, plan_of
from benchmarks.planning.probes import probe_names
from benchmarks.records import results
from benchmarks.records.results import write_json
from pretext.system import precision
from pretext.system.errors import UserError


def test_it_computes_prints_and_writes_then_finds_nothing_to_compute(smoke, capsys):
    assert run_smoke(smoke, "--seeds", "2") == 0
    printed = capsys.readouterr()
    assert "18 cells, 0 done; 18 to compute" in printed.out
    assert "(synthetic)" in printed.out
    line = next(line for line in printed.out.splitlines() if line.startswith("Rotation"))
    assert line.split()[:2] == ["Rotation", "40.5"]
    opened, *progress = printed.err.splitlines()
    assert "16 drawn pictures: train 8, val 4, test 4" in opened and len(progress) == 18
    with (smoke / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["pretext"], row["probe"], row["seed"]) for row in rows} == {
        (pretext, probe, seed)
        for pretext in ("random", "supervised", "rotation")
        for probe in ("linear", "segmentation")
        for seed in "01"
    }
    stamps = {path: path.stat().st_mtime_ns for path in (smoke / "results").iterdir()}
    assert run_smoke(smoke, "--seeds", "2") == 0
    assert "nothing to compute" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (smoke / "results").iterdir()} == stamps


def test_a_folder_keeps_to_one_training_data_set(smoke, capsys):
    other = "scenes?size=32&train=100&val=20&test=20&seed=3"
    assert run_smoke(smoke, "--pretrain-data", other) == 0
    assert f", trained on {other}" in capsys.readouterr().out
    with pytest.raises(UserError, match=rf"trained on {re.escape(other)}, not smoke on"):
        run_smoke(smoke)
    assert run_smoke(smoke, "--pretrain-data", other) == 0
    assert "nothing to compute" in capsys.readouterr().out


def test_tasks_and_probes_narrow_but_keep_what_a_table_needs(smoke, capsys):
    assert run_smoke(smoke, "--tasks", "rotation", "--probes", "knn") == 0
    printed = capsys.readouterr().out
    assert "rows: random, supervised, rotation" in printed
    assert "probes: knn; seeds: 1" in printed


def test_results_of_another_schema_are_refused_before_anything_is_computed(smoke, capsys, monkeypatch):
    run_smoke(smoke, "--probes", "linear")
    (path,) = (smoke / "results").glob("random.*")
    write_json(path, json.loads(path.read_text()) | {"schema_version": 0})
    monkeypatch.setattr(InProcess, "start", lambda *given: pytest.fail("it computes"))
    for arguments in (
        ["--profile", "smoke", "--out", str(smoke), "--workers", "1"],
        ["status", "--out", str(smoke)],
        ["reproduce", "random", "--out", str(smoke)],
        ["compare", "random", "rotation", "--out", str(smoke)],
    ):
        if arguments[0] == "status":  # it reads the times of cells only while some are left
            next((smoke / "results").glob("supervised.*")).unlink()
        with pytest.raises(UserError, match="schema_version is 0, this suite reads 1"):
            run_all.main(arguments)


def test_a_run_records_its_environment(smoke):
    from benchmarks.records.environment import read_environments

    run_smoke(smoke)
    (entry,) = read_environments(smoke)
    assert entry["workers"] == 1
    run_smoke(smoke)  # computes nothing, and so adds nothing
    assert read_environments(smoke) == [entry]


def test_the_report_is_written_again_only_if_its_inputs_changed(smoke, monkeypatch):
    made = []

    def note(out):
        made.append(out)
        (out / "report.html").touch()
        return out / "report.html"

    monkeypatch.setattr(report, "write_report", note)
    run_smoke(smoke)
    run_smoke(smoke)
    assert len(made) == 1
    run_smoke(smoke, "--bad-images", "stop")  # computes nothing; the plan that the report quotes is another
    assert len(made) == 2
    (path,) = (smoke / "results").glob("random.linear.*")
    os.utime(path, (0, 0))  # as by a run that was killed before its report
    run_smoke(smoke, "--bad-images", "stop")
    assert len(made) == 3
    monkeypatch.setattr(report, "__file__", str(smoke / "report" / "__init__.py"))  # another version of this code
    run_smoke(smoke, "--bad-images", "stop")
    assert len(made) == 4
    (smoke / ".report-inputs").write_bytes(b"\xff\xfe")
    run_smoke(smoke, "--bad-images", "stop")
    assert len(made) == 5


def test_a_cell_that_comes_while_results_are_read_is_in_the_next_tables(smoke, monkeypatch):
    (smoke / "report.html").parent.mkdir()
    (smoke / "report.html").touch()
    run_smoke(smoke)
    (path,) = (smoke / "results").glob("random.linear.*")
    late = path.read_text()
    path.unlink()
    read = results.read_measurements

    def read_then_written(out):
        found = read(out)
        path.write_text(late)  # by another machine
        return found

    with monkeypatch.context() as patched:
        patched.setattr(results, "read_measurements", read_then_written)
        run_all.finish(smoke)
    run_all.finish(smoke)
    assert path.stem in (smoke / "results.csv").read_text()


def test_a_processor_that_cannot_multiply_bfloat16_is_named_by_the_command_itself(smoke, monkeypatch, capsys):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)  # workers say it too, to their logs
    precision._say_once.cache_clear()
    run_smoke(smoke, "--precision", "bfloat16", "--dry-run")
    assert "precision bfloat16: this processor has no instructions for it" in capsys.readouterr().err
    precision._say_once.cache_clear()
    run_smoke(smoke, "--dry-run")
    assert "precision" not in capsys.readouterr().err


def test_a_refused_command_leaves_no_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    words = ["--data", f"folder:{tmp_path / 'empty'}", "--out", str(tmp_path / "results" / "mine")]
    with pytest.raises(UserError, match="no pictures in"):
        run_all.main(words)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_dry_run_writes_nothing(smoke, capsys):
    assert run_smoke(smoke, "--dry-run") == 0
    assert "9 to compute with 1 worker, about" in capsys.readouterr().out
    assert not smoke.exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_smoke_fills_every_probe_and_survives_kills_without_computing_a_cell_twice(tmp_path):
    environment = os.environ | {"PRETEXT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    out, few = tmp_path / "out", "scenes?size=32&train=96&val=32&test=32"

    def start(workers):
        words = f"--profile smoke --tasks context_encoder --data {few} --workers {workers} --out {out}".split()
        return subprocess.Popen(
            [sys.executable, run_all.__file__, *words],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # a shell's background job hands SIGINT on as ignored
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    def results():
        return {path.name: path.stat().st_mtime_ns for path in (out / "results").glob("*.json")}

    def until(enough, process):
        while not enough():
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.02)

    first = start(2)
    until(lambda: len(results()) >= 2, first)
    first.kill()
    first.communicate()
    before = len(results())

    second = start(1)
    until(lambda: len(results()) > before, second)
    second.send_signal(signal.SIGINT)
    printed = second.communicate(timeout=60)[0]
    assert second.returncode == 130, printed
    assert "stopped; run the same command again to resume" in printed
    finished = results()

    third = start(1)
    until((out / "results.csv").exists, third)
    third.kill()  # while it draws the report
    third.communicate()
    assert {name: results()[name] for name in finished} == finished
    planned = plan_of(Options(profile="smoke", tasks=("context_encoder",), data=(few,), out=out))
    assert not planned.missing(out)
    assert {cell.probe for cell in planned.cells} >= {*probe_names(), "inpainting"}
    assert not (out / "report.html").exists()

    fourth = start(1)
    printed = fourth.communicate(timeout=300)[0]
    assert fourth.returncode == 0, printed
    assert "nothing to compute" in printed
    assert (out / "report.html").exists()
    assert not list(out.rglob("*.tmp"))


def test_the_files_are_written_although_the_output_is_closed(tmp_path, monkeypatch):
    def closed(*_, **__):
        raise BrokenPipeError

    three_rows(tmp_path)
    monkeypatch.setattr("builtins.print", closed)
    with pytest.raises(BrokenPipeError):
        run_all.finish(tmp_path)
    assert (tmp_path / "results.csv").is_file() and (tmp_path / "report.html").is_file()
