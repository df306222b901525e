"""The commands of the documentation work: page by page, in a folder with what they name, on few pictures."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import re
import shutil

import pytest
from comparison_samples import InProcess
from documentation_samples import PAGES, commands_in, write_named_files

from benchmarks import report, run_all
from benchmarks.executors import choosing
from benchmarks.planning import adjusting, recipes

pytestmark = pytest.mark.slow
ENCODER = "alexnet?width=0.125&stem_stride=2"
FIRST_PAGE = "index"
"""Its commands run in tests/test_long_documentation.py, with as many pictures as their output needs."""
NOT_RUN = {
    r"make|\S*pip|\.venv/bin/(ruff|mypy|lint-imports)|jupyter|mkdocs": "CI runs them, or what they call",
    r"\S*python3? -m (venv|pytest|benchmarks.interval_simulation)\b": "CI runs them; the simulation takes an hour",
    r"python benchmarks/timing/": "they measure for minutes; tests/benchmarks runs each on little",
    r"python -m retrieval demo": "it serves until it is stopped; tests/retrieval starts it",
    r".*--executor (slurm|ray)": "tests/benchmarks/test_clusters.py starts both",
    r".*run_all.py did-it-help": "tests/benchmarks/test_did_it_help.py runs it on little",
    r".*cifar10:data --download|.*timm:resnet18 ": "they need a network",
}
FEW = {"--images": "16", "--steps": "5", "--watch-every": "1", "--seeds": "1", "--budget": "images=16", "--n": "2"}
"""Flags whose values are made small."""
MADE_BY = {
    "train": ["--images", "16", "--workers", "0"],
    "fit": ["--steps", "2"],
    "compare": ["--workers", "1"],
}
"""Flags that are added where a command lacks them."""


def is_run(words):
    return not any(re.match(pattern, " ".join(words)) for pattern in NOT_RUN)


def small(words):
    """Return a command on few pictures."""
    words = [FEW.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    words = [re.sub(r"^scenes(\?train=\d+)?$", "scenes?train=32&val=16&test=16&size=32", word) for word in words]
    if "--help" in words:
        return words
    words = [word.replace("classes=CLASSES", "classes=sea,land") for word in words]
    line = " ".join(words)
    kind = ""
    if re.match(r"(python -m pretext|pretext-bench) train", line):
        kind = "train"
    elif re.match(r"python -m downstream (detection|fine_tune|segmentation)", line):
        kind = "fit"
    elif re.search(r"run_all.py(?! \w)|pretext-bench compare", line):
        kind = "compare"
    more = MADE_BY.get(kind, [])
    pairs = zip(more[::2], more[1::2], strict=True)
    taken = {"--images", "--steps"} if {"--images", "--steps"} & {*words} and kind == "train" else {*words}
    return [*words, *(word for flag, value in pairs if flag not in taken for word in (flag, value))]


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A folder with the files that commands name, and the runs whose encoders they read."""
    folder = tmp_path_factory.mktemp("named")
    write_named_files(folder)
    train = importlib.import_module("pretext.__main__").main
    flags = ["--data", f"folder:{folder / 'photographs'}", "--image-size", "64", "--images", "16", "--workers", "0"]
    for name, task, encoder in (("mine", "context_encoder", ENCODER), ("resnet18", "rotation", "timm:test_resnet")):
        out = str(folder / "runs" / name)
        assert train(["train", task, *flags, "--encoder", encoder, "--out", out]) == 0
    shutil.copy(folder / "runs" / "mine" / "encoder.safetensors", folder / "mine.safetensors")
    return folder


@pytest.fixture
def place(named, tmp_path, monkeypatch):
    """An own copy of that folder, as working directory; comparisons are small and computed in this process."""
    folder = tmp_path / "place"
    shutil.copytree(named, folder, symlinks=True)
    monkeypatch.chdir(folder)
    smoke = recipes.smoke()
    rows = tuple(row for row in smoke.rows if row.name in ("random", "supervised", "context_encoder"))
    train = dataclasses.replace(smoke.train, images=16, batch_size=8)
    probes = {"knn": smoke.probes["knn"]}
    for name in recipes.PROFILES:
        one = dataclasses.replace(smoke, name=name, rows=rows, probes=probes, train=train)
        monkeypatch.setitem(recipes.PROFILES, name, lambda one=one: one)
    monkeypatch.setitem(choosing.EXECUTORS, "local", InProcess)
    monkeypatch.setattr(adjusting, "default_probe", lambda name: smoke.probes[name])
    monkeypatch.setattr(report, "write_report", lambda out: out / "report.html")
    return folder


@pytest.fixture(scope="module")
def once():
    """The commands that an earlier page has run."""
    return set()


def make_results(folders):
    """Write the results folders that a command reads and that are not there: like one that is, if there is one."""
    there = [folder for folder in folders if folder.exists()]
    for folder in folders:
        if there and folder not in there:
            shutil.copytree(there[0], folder)
        elif not there:
            flags = ["--profile", "smoke", "--tasks", "context_encoder", "--probes", "linear", "--workers", "1"]
            assert run_all.main([*flags, "--out", str(folder)]) == 0


def run(words, place):
    words = [str(sorted(place.glob("runs/mine/kept/*"))[-1]) if word == "$file" else word for word in words]
    print("\n$", *words, flush=True)
    program, *argv = words
    if program == "pretext-bench":
        return importlib.import_module("benchmarks.console").main(argv)
    if argv[0] == "-m":
        return importlib.import_module(f"{argv[1]}.__main__").main(argv[2:])
    assert argv[0].endswith("benchmarks/run_all.py")
    if {*argv} & {"compare", "merge", "leaderboard"}:
        argv = [word.replace("*", "hers") for word in argv]
        pairs = itertools.pairwise(argv)
        named = [word for before, word in pairs if before != "--out" and re.match(r"(results|submissions)/\w", word)]
        make_results([place / word for word in named])
    return run_all.main(argv[1:])


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != FIRST_PAGE], ids=lambda page: page.stem)
def test_the_commands_of_a_page_run_in_their_order(page, place, once):
    for words in filter(is_run, commands_in(page.read_text())):
        if "--out" not in words and " ".join(words) in once:  # nothing on the page builds on it
            continue
        once.add(" ".join(words))
        if {"train", "runs/mine"} <= {*words}:
            shutil.rmtree(place / "runs" / "mine")
        if run(small(words), place):
            failures = [file.read_text()[-2000:] for file in place.glob("results/*/failures/*")]
            pytest.fail("\n".join([" ".join(words), *failures]))


def test_most_commands_are_run_and_each_reason_against_is_needed():
    found = [" ".join(words) for page in PAGES for words in commands_in(page.read_text())]
    assert sum(is_run(line.split()) for line in found) > 75
    for pattern in NOT_RUN:
        assert any(re.match(pattern, line) for line in found), pattern
