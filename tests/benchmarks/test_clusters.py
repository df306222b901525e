"""The engines themselves, started here: a SLURM cluster of one node, and a Ray cluster that loses a node."""

from __future__ import annotations

import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster_samples import Waits, slurm_of_one_node, why_no_slurm
from comparison_samples import plan

from benchmarks.executors import slurm
from benchmarks.executors.local import LocalProcesses
from benchmarks.executors.ray import RayTasks
from benchmarks.executors.schedule import Estimate, run
from benchmarks.executors.slurm import SlurmJobs, queued_jobs
from benchmarks.records.results import read_measurements
from downstream.probes.knn import Knn
from pretext.system.errors import UserError
from pretext.training.config import TrainConfig

pytestmark = pytest.mark.slow
TESTS = str(Path(__file__).parents[1])
SPEC = "scenes?size=16&train=96&val=16&test=16"
NO_RAY = "ray is not installed: pip install 'pretext-bench[ray]'"


def small_plan(*probes, processes=1):
    """Plan a row that trains for some seconds, and two probes, or some of them."""
    known = {"knn": Knn(), "waits": Waits()}
    return plan(
        {name: known[name] for name in probes or known},
        rows={"rotation": "rotation"},
        spec=SPEC,
        train=TrainConfig(images=2_000, batch_size=16, workers=0, checkpoint_seconds=1000.0),
        processes=processes,
    )


def computed(planned, out, pool):
    """Compute the missing cells; return their errors."""
    planned.write(out, [])
    return run(planned.missing(out), out, pool, expected=Estimate({}, 1), progress=lambda *_: None)


def values(out):
    """Return all that must be equal whatever has computed it: each value, and the bytes of its encoder."""
    return {
        (row.cell, row.metric, row.stage): (row.value, row.items, row.encoder_sha256) for row in read_measurements(out)
    }


@pytest.fixture
def waits(tmp_path, monkeypatch):
    """The folder that `Waits` looks into; workers that are started from now on know it, and a cache of their own."""
    folder = tmp_path / "waits"
    folder.mkdir()
    monkeypatch.setenv("WAITS", str(folder))
    monkeypatch.setenv("PRETEXT_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What local processes compute."""
    out = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WAITS", str(out))
        patch.setenv("PYTHONPATH", TESTS)
        (out / "go").touch()
        assert computed(small_plan(), out, LocalProcesses(out, 2)) == {}
    return values(out)


@pytest.fixture(scope="module")
def expected_of_two(tmp_path_factory):
    """What local processes compute if two train the encoder together."""
    out = tmp_path_factory.mktemp("two")
    assert computed(small_plan("knn", processes=2), out, LocalProcesses(out, 2)) == {}
    return values(out)


@contextmanager
def meanwhile(act):
    """Call a function in a thread beside the block; raise what it raises."""
    with ThreadPoolExecutor(1) as thread:
        acting = thread.submit(act)
        yield
        acting.result()


def wait_for(ready):
    """Return the first true answer of a function."""
    deadline = time.monotonic() + 200
    while not (answer := ready()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return answer


@pytest.fixture(scope="module")
def one_node(tmp_path_factory):
    if reason := why_no_slurm():
        pytest.skip(reason)
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'pretext-bench[slurm]'")
    with pytest.MonkeyPatch.context() as patch, slurm_of_one_node(tmp_path_factory.mktemp("slurm")) as cluster:
        patch.setenv("SLURM_CONF", str(cluster.conf))
        patch.setattr(slurm, "LOOK_S", 1.0)
        patch.setattr(slurm, "SETTLE_S", 1.0)
        yield cluster


@pytest.fixture
def own_node(one_node, tmp_path, monkeypatch):
    """A cluster for one test: a job that ends while its daemon is away may hold its core of the cluster for ever."""
    (tmp_path / "slurm").mkdir()
    with slurm_of_one_node(tmp_path / "slurm") as cluster:
        monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
        yield cluster


@pytest.fixture
def submitted(one_node, waits, monkeypatch):
    """Record the cells of each submission of jobs, which then know the modules of the tests."""
    arrays: list[list[str]] = []
    real = slurm.submitted

    def record(cells, out, config):
        arrays.append([cell.name for cell in cells])
        return real(cells, out, config)

    monkeypatch.setenv("PYTHONPATH", TESTS)
    monkeypatch.setattr(slurm, "submitted", record)
    return arrays


def test_jobs_give_the_same_bits_although_one_meets_its_time_limit(tmp_path, submitted, waits, expected):
    out, planned = tmp_path / "out", small_plan()
    (waits / "go").touch()
    trained, *probes = (cell.name for cell in planned.cells)

    def reach_the_limit():
        wait_for((out / "pretrain" / trained / "log.jsonl").is_file)
        number = (out / "slurm" / f"{trained}.job").read_text()
        subprocess.run(["scancel", "--signal=USR2", number], check=True)  # as SLURM does before the limit

    with meanwhile(reach_the_limit):
        assert computed(planned, out, SlurmJobs(out, None, SlurmJobs.Config())) == {}
    assert [sorted(names) for names in submitted] == [[trained], [trained], sorted(probes)]
    assert values(out) == expected


def test_a_job_of_two_processes_goes_on_after_its_time_limit_to_the_same_bits(
    tmp_path, submitted, expected, expected_of_two
):
    out, planned = tmp_path / "out", small_plan("knn", processes=2)
    trained, probe = (cell.name for cell in planned.cells)

    def reach_the_limit():
        wait_for((out / "pretrain" / trained / "log.jsonl").is_file)
        number = (out / "slurm" / f"{trained}.job").read_text()
        subprocess.run(["scancel", "--signal=USR2", number], check=True)

    with meanwhile(reach_the_limit):
        assert computed(planned, out, SlurmJobs(out, None, SlurmJobs.Config())) == {}
    assert submitted == [[trained], [trained], [probe]]
    assert values(out) == expected_of_two
    assert not {sha for *_, sha in expected_of_two.values()} & {sha for *_, sha in expected.values()}


@pytest.mark.timeout(900)
def test_daemons_that_are_killed_lose_nothing(tmp_path, submitted, waits, expected, own_node, capsys):
    out, planned = tmp_path / "out", small_plan()
    trained, *probes = (cell.name for cell in planned.cells)

    def kill_the_daemons():
        wait_for((out / "pretrain" / trained / "log.jsonl").is_file)
        with own_node.jobs_held():
            own_node.kill("slurmctld")
        wait_for(lambda: len(submitted) > 2)  # the job goes on, and its probes could not be submitted
        own_node.start("slurmctld")
        wait_for((waits / "begun").is_file)
        own_node.kill("slurmd")
        (waits / "go").touch()
        own_node.start("slurmd")

    with meanwhile(kill_the_daemons):
        assert computed(planned, out, SlurmJobs(out, None, SlurmJobs.Config())) == {}
    assert [sorted(names) for names in submitted if names] == [[trained], *[sorted(probes)] * (len(submitted) - 1)]
    assert "SLURM does not answer" in capsys.readouterr().err
    assert values(out) == expected


def test_a_cancelled_job_is_the_only_loss_and_jobs_that_are_left_are_found_again(tmp_path, submitted, waits):
    out, planned = tmp_path / "out", plan({"knn": Knn(), "waits": Waits()}, rows={"random": "random"}, spec=SPEC)
    waiting = next(cell for cell in planned.cells if cell.probe == "waits")
    number = out / "slurm" / f"{waiting.name}.job"

    def begun(times):
        return wait_for(lambda: (waits / "begun").is_file() and (waits / "begun").read_text().count("\n") == times)

    def cancel():
        begun(1)
        subprocess.run(["scancel", number.read_text()], check=True)

    with meanwhile(cancel):
        failures = computed(planned, out, SlurmJobs(out, None, SlurmJobs.Config()))
    assert list(failures) == [waiting.name]
    assert failures[waiting.name].startswith(f"job {number.read_text()} was cancelled")
    assert planned.missing(out) == [waiting]

    first = SlurmJobs(out, None, SlurmJobs.Config(leave=True))
    first.start(waiting)
    assert first.outcomes(0.0) == []
    begun(2)
    first.stop()
    left, so_far = number.read_text(), len(submitted)
    with meanwhile((waits / "go").touch):
        assert computed(planned, out, SlurmJobs(out, None, SlurmJobs.Config())) == {}
    assert len(submitted) == so_far and number.read_text() == left
    assert planned.missing(out) == []


def test_a_stopped_command_cancels_its_jobs(tmp_path, submitted, waits):
    out, planned = tmp_path / "out", plan({"waits": Waits()}, rows={"random": "random"}, spec=SPEC)
    pool = SlurmJobs(out, None, SlurmJobs.Config())

    def interrupt(cell, outcome, left, seconds):
        raise KeyboardInterrupt

    planned.write(out, [])
    with pytest.raises(KeyboardInterrupt):
        run(planned.missing(out), out, pool, expected=Estimate({}, 1), progress=interrupt)
    pool = SlurmJobs(out, None, SlurmJobs.Config())
    pool.start(planned.cells[-1])
    pool.outcomes(0.0)
    number = (out / "slurm" / f"{planned.cells[-1].name}.job").read_text()
    pool.stop()
    wait_for(lambda: queued_jobs().get(number) == "CANCELLED")


def test_a_wrong_partition_is_one_line(tmp_path, submitted):
    pool = SlurmJobs(tmp_path, None, SlurmJobs.Config(partition="none"))
    pool.start(small_plan().cells[0])
    with pytest.raises(UserError, match=r"SLURM refuses the jobs: .*invalid partition specified: none"):
        pool.outcomes(0.0)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.filterwarnings("ignore")  # of Ray
def test_a_ray_cluster_that_loses_a_node_gives_the_same_bits(shared, tmp_path, waits, expected, monkeypatch):
    pytest.importorskip("ray", reason=NO_RAY)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", TESTS)
    from ray.cluster_utils import Cluster

    out = tmp_path / "out"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]

    def lose_a_node():
        wait_for((waits / "begun").exists)
        worker = (waits / "begun").read_text().split()[0]
        raylet = int(re.search(r"PPid:\s+(\d+)", Path(f"/proc/{worker}/status").read_text())[1])
        (lost,) = [node for node in nodes if node.all_processes["raylet"][0].process.pid == raylet]
        cluster.remove_node(lost)
        (waits / "go").touch()

    try:
        pool = RayTasks(out, None, RayTasks.Config(address=cluster.address, shared=shared))
        assert pool.workers == 2
        with meanwhile(lose_a_node):
            assert computed(small_plan(), out, pool) == {}
    finally:
        cluster.shutdown()
    assert len((waits / "begun").read_text().split()) == 2  # one cell, on both nodes
    assert values(out) == expected


@pytest.mark.filterwarnings("ignore")  # of Ray
def test_two_processes_train_a_cell_of_a_ray_cluster(tmp_path, expected_of_two, monkeypatch):
    pytest.importorskip("ray", reason=NO_RAY)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    out, planned = tmp_path / "out", small_plan("knn", processes=2)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        pool = RayTasks(out, None, RayTasks.Config(address=cluster.address))
        with pytest.raises(UserError, match="no node of the Ray cluster has 4 cores and 0 GPUs"):
            pool.fits(small_plan(processes=4).cells[0])
        assert computed(planned, out, pool) == {}
    finally:
        cluster.shutdown()
    assert values(out) == expected_of_two


@pytest.mark.filterwarnings("ignore")  # of Ray
def test_a_ray_cluster_that_is_not_there_is_one_line(tmp_path):
    pytest.importorskip("ray", reason=NO_RAY)
    with pytest.raises(UserError, match="--executor ray: no cluster at localhost:1"):
        RayTasks(tmp_path, None, RayTasks.Config(address="localhost:1"))
