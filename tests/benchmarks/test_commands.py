"""The subcommands status, compare, reproduce and clean."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

import pytest
from comparison_samples import Constant, run_smoke

from benchmarks import run_all
from benchmarks.executors import computing
from benchmarks.records.locks import cell_lock
from benchmarks.records.results import write_json
from pretext.system.errors import UserError


def test_a_failing_cell_makes_the_exit_code_1_and_status_says_so(smoke, capsys, monkeypatch):
    monkeypatch.setattr(Constant, "evaluate", lambda *given: (_ for _ in ()).throw(RuntimeError("a bad day")))
    assert run_smoke(smoke, "--probes", "linear") == 1
    printed = capsys.readouterr()
    assert "FAILED: RuntimeError: a bad day" in printed.err
    assert "3 cells failed" in printed.err
    assert run_all.main(["status", "--out", str(smoke)]) == 1
    assert "3 done, 0 running, 3 failed, 0 left" in capsys.readouterr().out
    assert run_all.main(["clean", "--out", str(smoke)]) == 0
    assert not (smoke / "failures").exists()


def test_status_says_how_long_the_rest_takes(smoke, capsys):
    run_smoke(smoke, "--seeds", "2")
    assert run_all.main(["status", "--out", str(smoke)]) == 0
    assert "18 done, 0 running, 0 failed, 0 left\n" in capsys.readouterr().out
    for path in (smoke / "results").iterdir():
        content = json.loads(path.read_text())
        content["measurements"][0]["wall_s"] = 60 if ".linear." in path.name else 150
        write_json(path, content)
    for name in ("rotation.linear.s0", "rotation.linear.s1", "random.segmentation.s1"):
        next((smoke / "results").glob(f"{name}.*")).unlink()
    run_all.main(["status", "--out", str(smoke)])
    assert (
        "15 done, 0 running, 0 failed, 3 left: about 4 min with 1 worker\n" in capsys.readouterr().out
    )  # 60 + 60 + 150 s
    for path in (smoke / "results").glob("*.segmentation.*"):
        path.unlink()
    run_all.main(["status", "--out", str(smoke)])  # no finished cell of that probe: its estimate at the others' pace
    assert "8 left: about 8 min with 1 worker" in capsys.readouterr().out  # 2 × 60 s, and 6 × 30 s twice as long


def test_a_locked_cell_is_running_and_clean_waits_for_it(smoke, capsys):
    run_smoke(smoke)
    result = next((smoke / "results").glob("rotation.linear.*"))
    result.unlink()
    with cell_lock(smoke, result.stem):
        assert run_all.main(["status", "--out", str(smoke)]) == 0
        assert f"8 done, 1 running, 0 failed, 0 left: about 1 s with 1 worker\nrunning  {result.stem}\n" in re.sub(
            r"about \d+ s", "about 1 s", capsys.readouterr().out
        )
        with pytest.raises(UserError, match="is in use by a running comparison; stop it first"):
            run_all.main(["clean", "--out", str(smoke)])
    assert run_all.main(["clean", "--out", str(smoke)]) == 0
    assert not (smoke / ".locks").exists()


def test_two_rows_are_compared(smoke, capsys):
    run_smoke(smoke, "--seeds", "2")
    capsys.readouterr()
    assert run_all.main(["compare", "rotation", "supervised", "--out", str(smoke)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r" \[\+0\.00, \+0\.00\] +not distinguishable\n", printed)
    assert "\nAfter Holm's correction for all 2: none.\n" in printed
    with pytest.raises(UserError, match="no row 'rotatio'; did you mean 'rotation'"):
        run_all.main(["compare", "rotatio", "random", "--out", str(smoke)])
    for name in ("random.linear", "rotation.segmentation"):
        for path in (smoke / "results").glob(f"{name}.*"):
            path.unlink()
    with pytest.raises(UserError, match="no probe has results of both rotation and random"):
        run_all.main(["compare", "rotation", "random", "--out", str(smoke)])


def test_a_cell_is_reproduced_by_the_beginning_of_its_name(smoke, capsys, monkeypatch):
    monkeypatch.setenv("PRETEXT_FEATURES_GB", "1")  # the command sets it
    with pytest.raises(UserError, match=r"out holds no results; give its --out"):
        run_all.main(["reproduce", "rotation.linear.s1", "--out", str(smoke)])
    run_smoke(smoke, "--seeds", "2")
    capsys.readouterr()
    assert run_all.main(["reproduce", "rotation.linear.s1", "--out", str(smoke)]) == 0
    assert "top1: was 41.0, is 41.0\nreproduced bit for bit, as required on a CPU" in capsys.readouterr().out
    assert os.environ["PRETEXT_FEATURES_GB"] == "0"
    with pytest.raises(
        UserError, match=r"no cell with a result in .* begins with 'rotation\.liner.*'; did you mean 'rotation\.lin"
    ):
        run_all.main(["reproduce", "rotation.liner.s1", "--out", str(smoke)])
    with pytest.raises(UserError, match=r"4 cells of .* begin with 'rotation': rotation\.linear\.s0\.\w+, ") as found:
        run_all.main(["reproduce", "rotation", "--out", str(smoke)])
    assert "random." not in str(found.value)
    (path,) = (smoke / "results").glob("rotation.linear.s1.*")
    content = json.loads(path.read_text())
    content["measurements"][0]["value"] = 40.999
    write_json(path, content)
    assert run_all.main(["reproduce", "rotation.linear.s1", "--out", str(smoke)]) == 1
    assert "was 40.999, is 41.0\nNOT reproduced bit for bit" in capsys.readouterr().out

    def broken(cell, out):
        raise RuntimeError("it broke")

    monkeypatch.setattr(computing, "_make_encoder", broken)
    with pytest.raises(UserError, match=r"RuntimeError: it broke; the traceback is in .*out.reproduced.failures"):
        run_all.main(["reproduce", "rotation.linear.s1", "--out", str(smoke)])


def test_clean_keeps_jobs_that_may_be_queued(smoke):
    run_smoke(smoke)
    done, waiting = [path.stem for path in sorted((smoke / "results").glob("r*"))][:2]
    (smoke / "slurm").mkdir()
    for name in (done, waiting):
        (smoke / "slurm" / f"{name}.job").write_text("7")
    (smoke / "results" / f"{waiting}.json").unlink()
    with pytest.raises(UserError, match=rf"has 1 job without a result \({re.escape(waiting)}\), which may be queued"):
        run_all.main(["clean", "--out", str(smoke)])
    assert len(list((smoke / "slurm").iterdir())) == 2
    (smoke / "slurm" / f"{waiting}.json").write_text("{}")  # it ended without a result
    assert run_all.main(["clean", "--out", str(smoke)]) == 0
    assert not (smoke / "slurm").exists()


def test_clean_can_spare_recent_files(smoke, capsys):
    run_smoke(smoke)
    for name, days in (("old.log", 9), ("young.log", 1)):
        path = smoke / "logs" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
        os.utime(path, (time.time() - days * 86400,) * 2)
    sheet = smoke / "superseded" / "deep" / "old.json"
    sheet.parent.mkdir(parents=True)
    sheet.touch()
    os.utime(sheet, (time.time() - 9 * 86400,) * 2)
    results = list((smoke / "results").iterdir())
    capsys.readouterr()
    assert run_all.main(["clean", "--older-than", "7", "--out", str(smoke)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [f"removed 1 file of {smoke / 'logs'}", f"removed 1 file of {smoke / 'superseded'}"]
    assert [path.name for path in (smoke / "logs").iterdir()] == ["young.log"]
    assert not (smoke / "superseded").exists()
    assert list((smoke / "results").iterdir()) == results
    capsys.readouterr()
    assert run_all.main(["clean", "--out", str(smoke)]) == 0
    assert not (smoke / "logs").exists()
    assert "removed" in capsys.readouterr().out
    assert run_all.main(["clean", "--out", str(smoke)]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cell_is_reproduced_with_any_number_of_threads_in_the_shell(tmp_path):
    program = [sys.executable, run_all.__file__]
    made = [
        "--profile",
        "smoke",
        "--tasks",
        "rotation",
        "--probes",
        "linear",
        "--budget",
        "images=2048",
        "--workers",
        "1",
        "--out",
        "out",
    ]
    for threads, arguments in (("1", made), ("3", ["reproduce", "rotation.linear", "--out", "out"])):
        environment = os.environ | {"PRETEXT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": threads}
        done = subprocess.run(
            [*program, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "reproduced bit for bit, as required on a CPU" in done.stdout
