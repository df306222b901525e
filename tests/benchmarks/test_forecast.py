"""What a comparison will cost: the arithmetic by hand, the table, and against the files and times of a real run."""

from __future__ import annotations

import dataclasses

import pytest
from comparison_samples import ROWS, Constant, InProcess, computed, plan, run_smoke

from benchmarks.executors.computing import compute
from benchmarks.executors.schedule import Estimate, run
from benchmarks.folders.progress import status
from benchmarks.forecast import measuring, telling
from benchmarks.forecast.costing import ITEM_BYTES, PROBE_BYTES, forecast, run_bytes
from benchmarks.forecast.measuring import Measured, measure, measured
from benchmarks.forecast.telling import forecast_text
from benchmarks.records.results import read_measurements
from pretext.training.config import TrainConfig

STEPS = Measured(
    images=8,
    cpu_s=2.0,
    wall_s=4.0,
    fixed_cpu_s=1.0,
    fixed_wall_s=3.0,
    flops_per_image=1e9,
    peak_bytes=900_000_000,
    pack_bytes=100_000_000,
    split=8,
    encoder_bytes=1_000_000,
    other_bytes=3_000_000,
    sheet_bytes=200_000,
    line_bytes=500,
)
FIT = dataclasses.replace(STEPS, images=0, cpu_s=0.0, wall_s=0.0, fixed_cpu_s=5.0, pack_bytes=0, flops_per_image=0.0)
LOOP = TrainConfig(images=80, batch_size=4, log_every=5, samples=4)


def costs(tmp_path, *, gpu=False, found=None, **changes):
    """Return the plan, its forecast, and the forecast's rows by name."""
    planned = plan(**({"seeds": 3, "train": LOOP} | changes))
    found = {"random": FIT, "rotation": STEPS, "supervised": "no room"} if found is None else found
    cost = forecast(planned, planned.missing(tmp_path), found, tmp_path, gpu=gpu)
    return planned, cost, {row.row: row for row in cost.rows}


def test_a_row_costs_its_steps_and_its_fixed_part_for_each_seed(tmp_path):
    _, cost, rows = costs(tmp_path)
    assert rows["rotation"].train_s == 3 * (1.0 + 80 * 2.0 / 8)  # three seeds of 80 pictures at a quarter of a second
    assert rows["rotation"].flops == 3 * 80 * 1e9
    assert rows["rotation"].peak_bytes == 1_000_000_000  # with the pictures that the whole run maps
    assert rows["random"].train_s == 3 * 5.0 and rows["random"].flops == 0.0
    assert costs(tmp_path, gpu=True)[2]["rotation"].train_s == 3 * (3.0 + 80 * 4.0 / 8)  # the clock counts
    assert cost.rows[0].row == "random"  # in the order of tables


def test_what_was_not_measured_takes_the_time_of_the_profile_at_the_measured_pace(tmp_path):
    _, cost, rows = costs(tmp_path)
    assert cost.pace == pytest.approx(21.0 / 100)  # the recipe expects 100 s of training
    assert rows["supervised"].train_s == pytest.approx(3 * 100 * 0.21)
    assert rows["supervised"].problem == "no room" and rows["supervised"].peak_bytes is None
    assert rows["rotation"].probe_s == pytest.approx(3 * (10 + 20) * 0.21)
    _, cost, rows = costs(tmp_path, found={})
    assert cost.pace is None and rows["rotation"].train_s == 300 and rows["rotation"].probe_s == 90


def test_finished_cells_give_the_time_of_their_probe_and_are_not_counted_again(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.executors.computing.time.monotonic", iter(range(0, 1000, 7)).__next__)
    planned = plan(rows={"random": "random"}, seeds=2)
    computed(planned, tmp_path, "random", "a")
    cost = forecast(planned, planned.missing(tmp_path), {"random": FIT}, tmp_path, gpu=False)
    assert cost.seen == ("a",)
    (row,) = cost.rows
    assert row.train_s == 5.0  # one of two seeds is there
    assert row.probe_s == 7.0 + 2 * 20.0


def test_files_are_encoder_checkpoint_sheets_lines_and_kept_encoders(tmp_path):
    planned, _, rows = costs(tmp_path, seeds=1)
    cell = next(cell for cell in planned.cells if cell.pretext == "rotation" and cell.trains)
    assert run_bytes(STEPS, cell) == 4_000_000 + 4 * 200_000 + 5 * 500  # 20 steps, a line every fifth and the last
    kept = dataclasses.replace(cell, train=dataclasses.replace(LOOP, keep="25%"))
    assert run_bytes(STEPS, kept) == run_bytes(STEPS, cell) + 4 * 1_000_000
    assert rows["rotation"].disk_bytes == run_bytes(STEPS, cell) + 2 * (PROBE_BYTES + 4 * ITEM_BYTES)


def test_a_budget_in_seconds_or_operations_gives_its_steps(tmp_path):
    _, _, rows = costs(tmp_path, train=TrainConfig(seconds=40.0, batch_size=4), seeds=1)
    assert rows["rotation"].flops == 80 * 1e9  # 8 pictures in four seconds
    _, _, rows = costs(tmp_path, train=TrainConfig(flops=160e9, batch_size=4), seeds=1)
    assert rows["rotation"].flops == 160e9


def test_the_table_fits_eighty_columns_and_says_what_is_assumed(tmp_path):
    long = ROWS | {
        "simclr?temperature=0.1&learning_rate=0.001": "simclr",
        "context_encoder:adversarial": "context_encoder",
    }
    _, cost, _ = costs(tmp_path, rows=long, train=TrainConfig(images=10**8, batch_size=4), probe_bytes=2e9)
    text = forecast_text(cost, workers=2, executor="slurm", width=80)
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    assert "GPU" not in text and "CPU h" in text
    assert "Supervised 20,833? " in words  # 3 seeds of 10⁸ pictures, at 0.25 s a picture
    assert "? Supervised: no room; its time is assumed" in words
    assert "the nodes of the cluster may be faster or slower" in words
    assert "up to 2.0 GB in each worker" in words
    assert "about 5 s for the start of each job" in words


def test_a_dry_run_prints_the_cost_of_each_row(smoke, capsys, monkeypatch):
    found = {"random": FIT, "supervised": STEPS, "rotation": STEPS}
    monkeypatch.setattr(telling, "measured", lambda cells: ((cell, found[cell.pretext]) for cell in cells))
    assert run_smoke(smoke, "--dry-run", "--seeds", "2") == 0
    out = capsys.readouterr().out
    assert "18 to compute with 1 worker, about" in out
    line = next(line for line in out.splitlines() if line.startswith("Rotation"))
    assert line.split() == ["Rotation", "6.0", "0.0", "1,000", "3.6", "11"], out
    assert not smoke.exists()
    run_smoke(smoke)
    monkeypatch.setattr(telling, "measured", lambda cells: pytest.fail("it measures"))
    assert run_smoke(smoke, "--dry-run") == 0
    assert capsys.readouterr().out.endswith("all done: nothing to compute\n")


@pytest.mark.slow
def test_the_forecast_agrees_with_the_run(tmp_path):
    planned = plan(
        {"a": Constant()},
        rows={"random": "random", "context_encoder": "context_encoder?decoder_width=0.1"},
        spec="scenes?size=16&train=64&val=4&test=4",
        train=TrainConfig(images=320, batch_size=16, log_every=5, workers=0),
    )
    cells = [cell for cell in planned.cells if cell.trains]
    found = {cell.pretext: measure(cell, 0.3) for cell in cells}
    planned.write(tmp_path, [])
    assert run(cells, tmp_path, InProcess(tmp_path), expected=Estimate({}, 1), progress=lambda *_: None) == {}
    for cell in cells:
        folder = tmp_path / "pretrain" / cell.name
        written = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        assert written / 1.1 < run_bytes(found[cell.pretext], cell) < written * 1.1


@pytest.mark.slow
def test_a_row_that_cannot_be_measured_is_left_and_the_next_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "SECONDS", 0.1)
    monkeypatch.setattr(measuring, "LEAST_S", 0.1)
    planned = plan(train=TrainConfig(images=32, batch_size=4, workers=0))
    random, supervised, rotation = (cell for cell in planned.cells if cell.trains)
    broken = dataclasses.replace(rotation, task="rotation?rotations=none")
    told = {cell.pretext: answer for cell, answer in measured([broken, supervised, random])}
    assert "rotations=none" in told["rotation"]
    assert isinstance(told["supervised"], Measured) and told["supervised"].images % 4 == 0
    assert isinstance(told["random"], Measured) and told["random"].images == 0


@pytest.mark.slow
def test_measuring_writes_nothing_that_a_run_would_find(tmp_path):
    planned = plan(rows={"rotation": "rotation"})
    encoder, *_ = planned.cells
    measure(encoder, 0.1)
    assert planned.missing(tmp_path) == list(planned.cells)
    compute(encoder, tmp_path)
    assert encoder.is_done(tmp_path)


def test_of_several_sets_the_finished_cells_of_each_give_the_time_of_their_probe(tmp_path, monkeypatch):
    planned = plan(rows={"random": "random"}, seeds=2)
    computed(planned, tmp_path, "random", "a")
    rows = [dataclasses.replace(m, probe="a on other") for m in read_measurements(tmp_path)]
    monkeypatch.setattr("benchmarks.forecast.costing.read_measurements", lambda _: rows)
    assert forecast(planned, planned.missing(tmp_path), {"random": FIT}, tmp_path, gpu=False).seen == ("a",)


def test_nothing_is_called_measured_where_nothing_was(tmp_path):
    _, cost, _ = costs(tmp_path)
    assert "Measured on this machine" in forecast_text(cost, workers=1, executor="local", width=80)
    _, cost, _ = costs(tmp_path, found={})
    assert "Measured on this machine" not in forecast_text(cost, workers=1, executor="local", width=80)


def test_an_encoder_is_not_left_to_train_once_all_its_probes_have_results(tmp_path):
    planned = plan(rows={"random": "random"}, seeds=1)
    planned.write(tmp_path, [])
    for probe in ("a", "b"):
        computed(planned, tmp_path, "random", probe)
    encoder = next((tmp_path / "pretrain").glob("*/encoder.safetensors"))
    encoder.unlink()
    assert status(tmp_path)[1].left == [] and not planned.missing(tmp_path)
    next((tmp_path / "results").glob("*.json")).unlink()
    assert len(status(tmp_path)[1].left) == 2
