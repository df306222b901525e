"""The loop over the missing cells: its order, failures, cells of other processes, and the time estimate."""

from __future__ import annotations

import pytest
from comparison_samples import Constant, InProcess, cell_names, plan

from benchmarks.executors import base, schedule
from benchmarks.executors.base import Outcome, run_cell
from benchmarks.executors.schedule import Estimate, run
from benchmarks.folders.progress import status
from benchmarks.planning.cells import Cell
from benchmarks.records.locks import cell_lock, is_locked
from benchmarks.records.results import encoder_path, read_failures, result_path
from pretext.system.errors import UserError


@pytest.fixture
def fake_compute(monkeypatch):
    """Record the cells instead of computing them; cells in `bad` fail."""
    order: list[Cell] = []
    bad: set[tuple[str, str]] = set()

    def compute(cell, out):
        order.append(cell)
        if (cell.pretext, cell.probe) in bad:
            raise RuntimeError("bad")
        path = result_path(out, cell.name) if cell.protocol else encoder_path(out, cell.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")

    monkeypatch.setattr(base, "compute", compute)
    return order, bad


def compute_missing(planned, out, reports=None):
    reports = [] if reports is None else reports
    return run(
        planned.missing(out),
        out,
        InProcess(out),
        expected=Estimate(planned.recipe.expected_s, 1),
        progress=lambda *each: reports.append(each),
    )


def test_encoders_come_first_then_the_longest(tmp_path, fake_compute, monkeypatch):
    monkeypatch.setattr(Estimate, "learn", lambda *given: None)  # on a busy machine the shortest may take longest
    order, _ = fake_compute
    reports: list = []
    assert compute_missing(plan(), tmp_path, reports) == {}
    assert [bool(cell.protocol) for cell in order] == [False] * 3 + [True] * 6
    assert [cell.probe for cell in order[3:]] == ["b"] * 3 + ["a"] * 3
    assert [left for _, _, left, _ in reports] == list(range(8, -1, -1))
    assert reports[-1][3] == 0.0


def test_nothing_is_computed_twice(tmp_path, fake_compute):
    order, _ = fake_compute
    planned = plan()
    compute_missing(planned, tmp_path)
    assert planned.missing(tmp_path) == []
    next(iter((tmp_path / "results").glob("rotation.a.*"))).unlink()
    before = len(order)
    compute_missing(planned, tmp_path)
    assert [(cell.pretext, cell.probe) for cell in order[before:]] == [("rotation", "a")]


def test_an_encoder_that_no_probe_needs_is_not_made_again(tmp_path, fake_compute):
    planned = plan()
    compute_missing(planned, tmp_path)
    for path in (tmp_path / "pretrain").rglob("*.safetensors"):
        path.unlink()
    assert planned.missing(tmp_path) == []


def test_a_failing_cell_is_written_down_and_the_rest_goes_on(tmp_path, fake_compute):
    order, bad = fake_compute
    bad.add(("rotation", "a"))
    planned = plan()
    planned.write(tmp_path, [])
    failures = compute_missing(planned, tmp_path)
    assert list(failures) == [cell_names(planned)["rotation", "a", 0]]
    assert len(order) == 9
    (written,) = read_failures(tmp_path)
    assert written["error"] == "RuntimeError: bad"
    assert len(status(tmp_path)[1].failed) == 1

    bad.clear()  # the next run tries it once more
    assert compute_missing(planned, tmp_path) == {}
    assert [cell.name for cell in order[9:]] == list(failures)


def test_probes_of_an_encoder_that_failed_are_not_tried(tmp_path, fake_compute):
    order, bad = fake_compute
    bad.add(("rotation", ""))
    failures = compute_missing(plan(), tmp_path)
    assert len(failures) == 3
    assert sum("its encoder" in text for text in failures.values()) == 2
    assert not [cell for cell in order if cell.pretext == "rotation" and cell.protocol]


def test_a_full_disk_ends_the_run_in_one_line(tmp_path, monkeypatch):
    def compute(cell, out):
        raise OSError(28, "No space left on device", "x.json")

    monkeypatch.setattr(base, "compute", compute)
    with pytest.raises(UserError, match=r"x\.json: No space left on device"):
        compute_missing(plan(), tmp_path)
    assert not (tmp_path / "failures").exists()


def test_what_another_process_computes_is_waited_for(tmp_path, fake_compute, monkeypatch):
    order, _ = fake_compute
    monkeypatch.setattr(schedule, "BUSY_S", 0.0)
    planned = plan({"a": Constant()}, rows={"random": "random"})
    encoder, probe = planned.cells
    lock = cell_lock(tmp_path, encoder.name)
    assert lock.__enter__()
    assert is_locked(tmp_path, encoder.name)
    assert run_cell(encoder, tmp_path).state == "busy"

    started: list[str] = []
    real = InProcess.outcomes

    def outcomes(self, timeout):  # the other process ends after a while
        found = real(self, 0.0)
        started.extend(outcome.state for outcome in found)
        if len(started) == 3:
            encoder_path(tmp_path, encoder.name).parent.mkdir(parents=True)
            encoder_path(tmp_path, encoder.name).write_text("theirs")
            lock.__exit__(None, None, None)
        return found

    monkeypatch.setattr(InProcess, "outcomes", outcomes)
    assert compute_missing(planned, tmp_path) == {}
    assert started[:3] == ["busy"] * 3
    assert [cell.name for cell in order] == [probe.name]
    assert encoder_path(tmp_path, encoder.name).read_text() == "theirs"


def test_a_stopped_cell_starts_again(tmp_path, fake_compute, monkeypatch):
    order, _ = fake_compute
    monkeypatch.setattr(schedule, "BUSY_S", 0.0)
    planned = plan({"a": Constant()}, rows={"random": "random"})
    stopped: list[str] = []
    real = InProcess.start

    def start(self, cell):  # the first attempt at each cell ends early
        if cell.name in stopped:
            real(self, cell)
        else:
            stopped.append(cell.name)
            self._finished.append(Outcome(cell.name, "stopped", 0.0))

    monkeypatch.setattr(InProcess, "start", start)
    assert compute_missing(planned, tmp_path) == {}
    assert stopped == [cell.name for cell in order] == [cell.name for cell in planned.cells]


def test_the_estimate_learns():
    cells = plan(rows={"rotation": "rotation"}).cells
    encoder, a, b = cells
    expected = Estimate({"pretrain": 100, "a": 10, "b": 20}, 2)
    assert expected.of_all(cells) == 100  # at least the longest cell
    assert expected.of_all([a, b]) == 20
    expected.learn(a, 5.0)  # half of the estimate
    assert expected.of(a) == 5.0
    assert expected.of(b) == 10.0
    assert expected.of(encoder) == 50.0
    expected.learn(b, 0.0)  # another process had computed it
    assert expected.of(b) == 10.0


def test_a_line_names_some_running_cells_and_counts_the_others(capsys):
    cells = plan(rows={"rotation": "rotation"}, seeds=4).cells
    schedule.show_waiting([*cells[:4]], 12, 60.0)
    schedule.show_waiting([*cells], 12, 60.0)
    few, many = capsys.readouterr().err.splitlines()[-2:]
    assert few.count("rotation") == many.count("rotation") == schedule.MOST_NAMED
    assert " more" not in few and f" and {len(cells) - 4} more; 12 left" in many
