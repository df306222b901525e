"""Jobs of SLURM without SLURM: what becomes of a cell by the state of its job, and jobs that are found again."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess

import pytest
from comparison_samples import plan

from benchmarks.executors import slurm
from benchmarks.executors.base import RETRIES, Outcome
from benchmarks.executors.slurm import SlurmJobs
from benchmarks.records.results import read_failures, result_path, write_json
from pretext.system.errors import UserError


@pytest.fixture
def queue(monkeypatch):
    """The states of all jobs by number, as `squeue` gives them; what is submitted waits."""
    states: dict[str, str] = {}
    numbers = itertools.count(1)

    def submitted(cells, out, config):
        new = [str(next(numbers)) for _ in cells]
        states.update(dict.fromkeys(new, "PENDING"))
        return new

    monkeypatch.setattr(slurm.shutil, "which", lambda name: name)
    monkeypatch.setattr(slurm, "submitted", submitted)
    monkeypatch.setattr(slurm, "queued_jobs", lambda: dict(states))
    monkeypatch.setattr(slurm, "LOOK_S", 0.0)
    monkeypatch.setattr(slurm, "SETTLE_S", 0.0)
    return states


@pytest.fixture
def cells():
    """An encoder that takes training, and a probe of it."""
    encoder, probe, _ = plan(rows={"rotation": "rotation"}).cells
    return encoder, probe


def started(out, *cells, **options):
    pool = SlurmJobs(out, 4, SlurmJobs.Config(**options))
    for cell in cells:
        pool.start(cell)
    pool.outcomes(0.0)
    return pool


def taken(pool):
    return len(pool._jobs) + len(pool._new)


def test_a_job_s_outcome_is_that_of_its_cell(tmp_path, queue, cells):
    encoder, probe = cells
    pool = started(tmp_path, encoder, probe)
    assert queue == {"1": "PENDING", "2": "PENDING"} and taken(pool) == 2
    done = Outcome(encoder.name, "done", 3.5)
    write_json(tmp_path / "slurm" / f"{encoder.name}.json", dataclasses.asdict(done))
    assert pool.outcomes(0.0) == [done]
    assert taken(pool) == 1
    queue["2"] = "RUNNING"
    assert pool.outcomes(0.0) == []


@pytest.mark.parametrize("state", ["CANCELLED", "FAILED", "OUT_OF_MEMORY", "COMPLETED"])
def test_a_job_that_ends_without_an_outcome_fails_its_cell(tmp_path, queue, cells, state):
    pool = started(tmp_path, cells[0])
    queue["1"] = state
    (outcome,) = pool.outcomes(0.0)
    assert outcome.state == "failed"
    assert outcome.error.startswith("job 1 was cancelled" if state == "CANCELLED" else f"job 1 ended as {state}")
    assert [failure["cell"] for failure in read_failures(tmp_path)] == [cells[0].name]
    assert taken(pool) == 0


@pytest.mark.parametrize("state", ["TIMEOUT", "PREEMPTED", "NODE_FAIL", "forgotten"])
def test_a_lost_job_starts_again_as_often_as_its_cell_gains_by_it(tmp_path, queue, cells, state):
    pool = started(tmp_path, *cells)
    starts = dict.fromkeys((cell.name for cell in cells), 1)
    for _ in range(RETRIES + 2):
        for number in list(queue):
            if state == "forgotten":
                del queue[number]
            else:
                queue[number] = state
        for outcome in pool.outcomes(0.0):
            if outcome.state == "stopped":
                starts[outcome.cell] += 1
                pool.start(next(cell for cell in cells if cell.name == outcome.cell))
        pool.outcomes(0.0)
    encoder, probe = (cell.name for cell in cells)
    assert starts == {encoder: RETRIES + 3, probe: RETRIES + 1}
    (failure,) = read_failures(tmp_path)
    assert failure["cell"] == probe and failure["error"].startswith(f"{RETRIES + 1} jobs ended as")


def test_a_queue_that_does_not_answer_ends_nothing(tmp_path, queue, cells, monkeypatch):
    pool = started(tmp_path, cells[0])
    monkeypatch.setattr(slurm, "queued_jobs", lambda: None)
    assert pool.outcomes(0.0) == [] and taken(pool) == 1


def test_the_result_of_a_job_of_another_call_counts(tmp_path, queue, cells):
    pool = started(tmp_path, cells[1])
    write_json(result_path(tmp_path, cells[1].name), {})
    queue["1"] = "COMPLETED"
    assert pool.outcomes(0.0) == [Outcome(cells[1].name, "done", 0.0)]


def test_jobs_that_were_left_are_found_again_and_others_cancelled(tmp_path, queue, cells, monkeypatch):
    cancelled = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: cancelled.append(command))
    started(tmp_path, *cells, leave=True).stop()
    assert cancelled == []
    del queue["1"]
    pool = started(tmp_path, *cells)
    assert queue == {"2": "PENDING", "3": "PENDING"}  # the first is submitted again
    pool.stop()
    assert [sorted(command) for command in cancelled] == [["2", "3", "scancel"]]


def test_cells_wait_while_the_controller_does_not_answer(tmp_path, queue, cells, monkeypatch, capsys):
    real, refusals = slurm.submitted, iter([slurm.NoAnswerError("SLURM does not answer: gone")] * 2)

    def submitted(given, out, config):
        for refusal in refusals:
            raise refusal
        return real(given, out, config)

    monkeypatch.setattr(slurm, "submitted", submitted)
    pool = started(tmp_path, *cells)
    assert pool.outcomes(0.0) == [] and queue == {} and taken(pool) == 2
    assert pool.outcomes(0.0) == [] and queue == {"1": "PENDING", "2": "PENDING"} and taken(pool) == 2
    assert capsys.readouterr().err.count("SLURM does not answer: gone; trying again every") == 1


def test_cells_of_several_processes_are_an_array_of_their_own(tmp_path, queue, cells, monkeypatch):
    arrays, real = [], slurm.submitted
    monkeypatch.setattr(slurm, "submitted", lambda given, *rest: arrays.append(list(given)) or real(given, *rest))
    pair = dataclasses.replace(cells[0], name="pair", processes=2)
    pool = started(tmp_path, cells[0], pair, cells[1])
    assert arrays == [[cells[0], cells[1]], [pair]] and taken(pool) == 3
    assert pool.fits(pair)
    pool.start(dataclasses.replace(pair, name="another"))
    assert not pool.fits(pair)


def test_a_controller_that_stays_away_ends_the_command_in_one_line(tmp_path, queue, cells, monkeypatch):
    def submitted(given, out, config):
        raise slurm.NoAnswerError("SLURM does not answer: gone")

    monkeypatch.setattr(slurm, "submitted", submitted)
    monkeypatch.setattr(slurm, "PATIENCE_S", -1.0)
    with pytest.raises(UserError, match="gone; start the same command when SLURM runs"):
        started(tmp_path, cells[0])


def test_a_queue_that_does_not_answer_at_the_start_is_refused(tmp_path, queue, monkeypatch):
    monkeypatch.setattr(slurm, "queued_jobs", lambda: None)  # jobs of an earlier call would be submitted twice
    with pytest.raises(UserError, match="squeue gets no answer; start the same command when SLURM runs"):
        started(tmp_path)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)", "wait"),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", "wait"),
        ("sbatch: error: invalid partition specified: none", "refused"),
    ],
)
def test_only_a_silent_controller_is_waited_for(tmp_path, cells, monkeypatch, said, kind):
    submitit = pytest.importorskip("submitit", reason="submitit is not installed: pip install 'pretext-bench[slurm]'")

    class Refuses:
        def __init__(self, folder):
            pass

        def update_parameters(self, **given):
            pass

        def map_array(self, *given):
            raise RuntimeError(said)

    monkeypatch.setattr(submitit, "SlurmExecutor", Refuses)
    with pytest.raises(slurm.NoAnswerError if kind == "wait" else UserError, match="SLURM"):
        slurm.submitted([cells[0]], tmp_path, SlurmJobs.Config())
