"""The command: what it refuses, prints and writes; and, slowly, that it survives being killed."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from comparison_samples import SPEC, Constant, Masked, recipe

from benchmarks import computing, executor, recipes, report, run_all
from benchmarks.cells import Inpainting
from benchmarks.options import Options, asked_encoders, asked_rows, plan_of, with_budget
from benchmarks.results import read_json, write_json
from pretext.system.errors import UserError

ROOT = Path(run_all.__file__).parents[1]


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """A profile `smoke` of probes that cost nothing, computed in this process, its encoders never trained."""
    monkeypatch.setenv("PRETEXT_CACHE", str(tmp_path / "cache"))
    made = recipe(name="smoke", probes={"linear": Constant(value=40), "segmentation": Masked(value=20)})
    monkeypatch.setitem(recipes.PROFILES, "smoke", lambda: made)
    types_ = {"linear": Constant, "knn": Constant, "segmentation": Masked}
    monkeypatch.setattr(recipes, "probe_types", lambda: types_)
    monkeypatch.setattr(executor, "LocalProcesses", lambda out, workers: executor.InProcess(out))
    monkeypatch.setattr(signal, "signal", lambda *given: None)
    monkeypatch.setattr(report, "write_report", lambda out: out / "report.html")

    def untrained(cell, out):
        from pretext.encoders import build_encoder, save_encoder

        encoder = build_encoder(cell.encoder, input_size=cell.data.size, seed=cell.seed)
        save_encoder(encoder, computing.encoder_path(out, cell.name), {"images_seen": 8})

    monkeypatch.setattr(computing, "_make_encoder", untrained)
    return tmp_path / "out"


def command(out, *more):
    return run_all.main(["--profile", "smoke", "--out", str(out), "--workers", "1", *more])


def test_it_computes_prints_and_writes_then_finds_nothing_to_compute(quick, capsys):
    assert command(quick, "--seeds", "2") == 0
    said = capsys.readouterr()
    assert "18 cells, 0 done; 18 to compute" in said.out
    assert "(synthetic)" in said.out
    line = next(line for line in said.out.splitlines() if line.startswith("rotation"))
    assert line.split()[1] == "40.5"
    assert len(said.err.splitlines()) == 18
    with (quick / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["pretext"], row["probe"], row["seed"]) for row in rows} == {
        (pretext, probe, seed)
        for pretext in ("random", "supervised", "rotation")
        for probe in ("linear", "segmentation")
        for seed in "01"
    }
    stamps = {path: path.stat().st_mtime_ns for path in (quick / "results").iterdir()}
    assert command(quick, "--seeds", "2") == 0
    assert "nothing to compute" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (quick / "results").iterdir()} == stamps


def test_a_folder_keeps_to_what_its_rows_learned_from(quick, capsys):
    other = "scenes?size=32&train=100&val=20&test=20&seed=3"
    assert command(quick, "--pretrain-data", other) == 0
    assert f", trained on {other}" in capsys.readouterr().out
    with pytest.raises(UserError, match=rf"trained on {re.escape(other)}, not smoke on"):
        command(quick)
    assert command(quick, "--pretrain-data", other) == 0
    assert "nothing to compute" in capsys.readouterr().out


def test_tasks_and_probes_narrow_but_keep_what_a_table_needs(quick, capsys):
    assert command(quick, "--tasks", "rotation", "--probes", "knn") == 0
    said = capsys.readouterr().out
    assert "rows: random, supervised, rotation" in said
    assert "probes: knn; seeds: 1" in said


def test_a_failing_cell_makes_the_exit_code_1_and_status_says_so(quick, capsys, monkeypatch):
    monkeypatch.setattr(Constant, "evaluate", lambda *given: (_ for _ in ()).throw(RuntimeError("a bad day")))
    assert command(quick, "--probes", "linear") == 1
    said = capsys.readouterr()
    assert "FAILED: RuntimeError: a bad day" in said.err
    assert "3 cells failed" in said.err
    assert run_all.main(["status", "--out", str(quick)]) == 1
    assert "3 done, 0 running, 3 failed, 0 left" in capsys.readouterr().out
    assert run_all.main(["clean", "--out", str(quick)]) == 0
    assert not (quick / "failures").exists()


def test_status_says_how_long_the_rest_takes(quick, capsys):
    command(quick, "--seeds", "2")
    assert run_all.main(["status", "--out", str(quick)]) == 0
    assert "18 done, 0 running, 0 failed, 0 left\n" in capsys.readouterr().out
    for path in (quick / "results").iterdir():
        content = read_json(path)
        content["measurements"][0]["wall_s"] = 60 if ".linear." in path.name else 150
        write_json(path, content)
    for name in ("rotation.linear.s0", "rotation.linear.s1", "random.segmentation.s1"):
        next((quick / "results").glob(f"{name}.*")).unlink()
    run_all.main(["status", "--out", str(quick)])
    assert (
        "15 done, 0 running, 0 failed, 3 left: about 4 min by 1 worker\n" in capsys.readouterr().out
    )  # 60 + 60 + 150 s
    for path in (quick / "results").glob("*.segmentation.*"):
        path.unlink()
    run_all.main(["status", "--out", str(quick)])  # a probe that has not been seen: as told, at the pace of the others
    assert "8 left: about 8 min by 1 worker" in capsys.readouterr().out  # 2 × 60 s, and 6 × 30 s twice as long


def test_results_of_another_schema_are_refused_before_anything_is_computed(quick, capsys, monkeypatch):
    command(quick, "--probes", "linear")
    (path,) = (quick / "results").glob("random.*")
    write_json(path, read_json(path) | {"schema_version": 0})
    monkeypatch.setattr(executor, "LocalProcesses", lambda *given, **more: pytest.fail("it computes"))
    for arguments in (
        ["--profile", "smoke", "--out", str(quick), "--workers", "1"],
        ["status", "--out", str(quick)],
        ["reproduce", "random", "--out", str(quick)],
        ["compare", "random", "rotation", "--out", str(quick)],
    ):
        if arguments[0] == "status":  # which asks how long cells took only while some are left
            next((quick / "results").glob("supervised.*")).unlink()
        with pytest.raises(UserError, match="schema_version is 0, this suite reads 1"):
            run_all.main(arguments)


def test_two_rows_are_compared(quick, capsys):
    command(quick, "--seeds", "2")
    capsys.readouterr()
    assert run_all.main(["compare", "rotation", "supervised", "--out", str(quick)]) == 0
    assert re.search(r" \[\+0\.00, \+0\.00\] +not distinguishable\n", capsys.readouterr().out)
    with pytest.raises(UserError, match="no row 'rotatio'; did you mean 'rotation'"):
        run_all.main(["compare", "rotatio", "random", "--out", str(quick)])
    for judged in ("random.linear", "rotation.segmentation"):
        for path in (quick / "results").glob(f"{judged}.*"):
            path.unlink()
    with pytest.raises(UserError, match="no probe has judged both rotation and random"):
        run_all.main(["compare", "rotation", "random", "--out", str(quick)])


def test_a_cell_is_reproduced_by_the_beginning_of_its_name(quick, capsys, monkeypatch):
    monkeypatch.setenv("PRETEXT_FEATURES_GB", "1")  # the command sets it
    with pytest.raises(UserError, match=r"out holds no results; give its --out"):
        run_all.main(["reproduce", "rotation.linear.s1", "--out", str(quick)])
    command(quick, "--seeds", "2")
    capsys.readouterr()
    assert run_all.main(["reproduce", "rotation.linear.s1", "--out", str(quick)]) == 0
    assert "top1: was 41.0, is 41.0\nreproduced to the last bit, as on a CPU" in capsys.readouterr().out
    assert os.environ["PRETEXT_FEATURES_GB"] == "0"
    with pytest.raises(
        UserError, match=r"no cell with a result in .* begins with 'rotation\.liner.*'; did you mean 'rotation\.lin"
    ):
        run_all.main(["reproduce", "rotation.liner.s1", "--out", str(quick)])
    with pytest.raises(UserError, match=r"4 cells of .* begin with 'rotation': rotation\.linear\.s0\.\w+, ") as found:
        run_all.main(["reproduce", "rotation", "--out", str(quick)])
    assert "random." not in str(found.value)
    (path,) = (quick / "results").glob("rotation.linear.s1.*")
    content = read_json(path)
    content["measurements"][0]["value"] = 40.999
    write_json(path, content)
    assert run_all.main(["reproduce", "rotation.linear.s1", "--out", str(quick)]) == 1
    assert "was 40.999, is 41.0\nNOT reproduced to the last bit" in capsys.readouterr().out

    def broken(cell, out):
        raise RuntimeError("it broke")

    monkeypatch.setattr(computing, "_make_encoder", broken)
    with pytest.raises(UserError, match=r"RuntimeError: it broke; the traceback is in .*out.reproduced.failures"):
        run_all.main(["reproduce", "rotation.linear.s1", "--out", str(quick)])


def test_clean_can_spare_what_is_young(quick, capsys):
    command(quick)
    for name, days in (("old.log", 9), ("young.log", 1)):
        path = quick / "logs" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
        os.utime(path, (time.time() - days * 86400,) * 2)
    sheet = quick / "superseded" / "deep" / "old.json"
    sheet.parent.mkdir(parents=True)
    sheet.touch()
    os.utime(sheet, (time.time() - 9 * 86400,) * 2)
    results = list((quick / "results").iterdir())
    capsys.readouterr()
    assert run_all.main(["clean", "--older-than", "7", "--out", str(quick)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [f"removed 1 file of {quick / 'logs'}", f"removed 1 file of {quick / 'superseded'}"]
    assert [path.name for path in (quick / "logs").iterdir()] == ["young.log"]
    assert not (quick / "superseded").exists()
    assert list((quick / "results").iterdir()) == results
    capsys.readouterr()
    assert run_all.main(["clean", "--out", str(quick)]) == 0
    assert not (quick / "logs").exists()
    assert "removed" in capsys.readouterr().out
    assert run_all.main(["clean", "--out", str(quick)]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"


def test_a_run_leaves_what_it_was_computed_with(quick):
    from benchmarks.environment import read_environments

    command(quick)
    (entry,) = read_environments(quick)
    assert entry["workers"] == 1
    command(quick)  # computes nothing, and so adds nothing
    assert read_environments(quick) == [entry]


def test_the_report_is_made_anew_when_what_it_says_may_have_changed_and_only_then(quick, monkeypatch):
    made = []

    def note(out):
        made.append(out)
        (out / "report.html").touch()
        return out / "report.html"

    monkeypatch.setattr(report, "write_report", note)
    command(quick)
    command(quick)
    assert len(made) == 1
    command(quick, "--bad-images", "stop")  # computes nothing; the plan that the report quotes is another
    assert len(made) == 2
    (path,) = (quick / "results").glob("random.linear.*")
    os.utime(path, (0, 0))  # by a run that was killed before it came to its report
    command(quick, "--bad-images", "stop")
    assert len(made) == 3
    monkeypatch.setattr(report, "__file__", str(quick / "report" / "__init__.py"))  # another version of this code
    command(quick, "--bad-images", "stop")
    assert len(made) == 4


def test_a_dry_run_writes_nothing(quick, capsys):
    assert command(quick, "--dry-run") == 0
    assert "9 to compute by 1 worker, about" in capsys.readouterr().out
    assert not quick.exists()


def test_a_budget_holds_for_every_row_and_replaces_the_profiles():
    made = recipe(rows={"random": None, "rotation": "rotation"}, expected_s={"pretrain": 10, "linear": 3})
    images = made.train.images
    longer = with_budget(made, f"images={4 * images}")
    assert longer.train_config("rotation", seed=1).images == 4 * images
    assert longer.expected_s == {"pretrain": 40, "linear": 3}
    timed = with_budget(made, "seconds=2.5").train
    assert (timed.images, timed.seconds) == (None, 2.5)
    assert with_budget(made, None) is made


def test_every_row_and_probe_sees_pictures_of_the_size_that_is_asked_for(quick):
    plan = plan_of(Options(profile="smoke", image_size=24, out=quick))
    assert {cell.data.size for cell in plan.cells} == {24}


def test_another_comparison_in_the_folder_is_refused(quick):
    command(quick)
    with pytest.raises(UserError, match="give another --out"):
        command(quick, "--data", SPEC + "&seed=1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "lapptop"], "unknown profile 'lapptop'; did you mean 'laptop'"),
        (["--profile", "smoke", "--tasks", "rotatoin"], "unknown task 'rotatoin'; did you mean 'rotation'"),
        (["--profile", "smoke", "--tasks", "rotation?angels=3"], "unknown option 'angels'"),
        (["--profile", "smoke", "--tasks", "mae"], "here --architecture names the encoder of all rows"),
        (["--profile", "smoke", "--architecture", "alexnett"], "did you mean 'alexnet'"),
        (["--profile", "smoke", "--budget", "image=9"], "--budget image=9: did you mean 'images'"),
        (["--profile", "smoke", "--budget", "images=0"], "--budget images=0: '0' is no number above 0"),
        (["--profile", "smoke", "--budget", "flops=many"], "--budget flops=many: 'many' is no number above 0"),
        (["--profile", "smoke", "--probes", "linaer"], "unknown probe 'linaer'; did you mean 'linear'"),
        (["--profile", "smoke", "--data", "scnes"], "did you mean 'scenes'"),
        (["--profile", "smoke", "--encoder", "mine"], "write NAME=FILE"),
        (
            ["--profile", "smoke", "--encoder", "mine=nowhere.safetensors"],
            "nowhere.safetensors does not exist",
        ),
        (["--profile", "smoke", "--encoder", "random=x"], "there is a row random already"),
        (["--seeds", "0"], "--seeds is 0"),
        (["clean", "--older-than", "-1", "--out", "nowhere"], "--older-than is -1.0; allowed is 0 or more days"),
        (["clen", "--out", "nowhere"], "unknown command 'clen'; did you mean 'clean'"),
        (["compare", "random", "random"], "random is given twice; name two different rows"),
        (["compare", "random", "rotation", "--out", "nowhere"], "nowhere holds no results"),
        (["--image-size", "7"], "--image-size is 7; allowed is 8 or more"),
        (["--sedes", "1"], "did you mean --seeds"),
        (["status", "--out", "nowhere"], "no comparison was started there"),
    ],
)
def test_what_cannot_be_used_is_one_line(quick, arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        run_all.main(arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_one_line(quick, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="give another --out"):
        command(tmp_path / "file" / "out")


def test_a_task_spec_is_a_row_of_its_own():
    rows = asked_rows(("rotation?", "simclr"), {"simclr": "simclr:small"})
    assert rows == {
        "random": None,
        "supervised": "supervised",
        "rotation?": "rotation?",
        "simclr": "simclr:small",
    }


def test_timm_encoders_need_no_name():
    assert asked_encoders(("timm:resnet18",), taken={}, size=32) == {"timm:resnet18": "timm:resnet18"}


def test_an_inpainting_column_is_known_everywhere(quick):
    assert recipes.judge("inpainting") == Inpainting()
    assert "inpainting" in recipes.judge_names()


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


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cell_is_reproduced_whatever_number_of_threads_the_shell_asks_for(tmp_path):
    program = [sys.executable, str(ROOT / "benchmarks" / "run_all.py")]
    made = [
        "--profile",
        "smoke",
        "--tasks",
        "rotation",
        "--probes",
        "linear",
        "--budget",
        "images=2048",
        "--out",
        "out",
    ]
    for threads, arguments in (("1", made), ("3", ["reproduce", "rotation.linear", "--out", "out"])):
        environment = os.environ | {"PRETEXT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": threads}
        done = subprocess.run(
            [*program, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "reproduced to the last bit, as on a CPU" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_smoke_survives_kill_and_computes_no_cell_twice(tmp_path):
    environment = os.environ | {"PRETEXT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    out = tmp_path / "out"
    arguments = [
        sys.executable,
        str(ROOT / "benchmarks" / "run_all.py"),
        "--profile",
        "smoke",
        "--out",
        str(out),
    ]

    def start():
        return subprocess.Popen(
            arguments,
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

    first = start()
    until(lambda: len(results()) >= 2, first)
    first.kill()
    first.communicate()
    before = len(results())

    second = start()
    until(lambda: len(results()) > before, second)
    second.send_signal(signal.SIGINT)
    said = second.communicate(timeout=60)[0]
    assert second.returncode == 130, said
    assert "stopped; run the same command again to resume" in said
    finished = results()

    third = start()
    said = third.communicate(timeout=300)[0]
    assert third.returncode == 0, said
    assert {name: results()[name] for name in finished} == finished
    assert len(results()) == 3 * 4 + 1  # three rows, four probes, and one row that fills holes
    assert (out / "results.csv").exists()
    assert (out / "report.html").exists()
    assert not list(out.rglob("*.tmp"))

    begun = time.monotonic()
    fourth = start()
    said = fourth.communicate(timeout=60)[0]
    assert fourth.returncode == 0, said
    assert "nothing to compute" in said
    assert time.monotonic() - begun < 30
