"""The distribution: every import declared, one console script, the version, and packages that stay its own."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from benchmarks import console
from pretext.system import installation, revision
from pretext.system.errors import UserError

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CALLED = {
    "PIL": "pillow",
    "faiss": "faiss-cpu",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "faster_coco_eval": "faster-coco-eval",
    "umap": "umap-learn",
}
"""Distributions whose names are not those of their packages."""


def distributions(requirements):
    return {re.split(r"[<>=!~ \[]", requirement)[0] for requirement in requirements}


def imported(folder):
    """Yield the name of each package that the code in a folder imports."""
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0]


@pytest.mark.parametrize("package", installation.PACKAGES)
def test_every_import_is_declared(package):
    extras = PROJECT["optional-dependencies"]
    declared = distributions(PROJECT["dependencies"]).union(*(distributions(some) for some in extras.values()))
    needed = {name for name in imported(package) if name not in sys.stdlib_module_names}
    missing = {name for name in needed - set(installation.PACKAGES) if CALLED.get(name, name) not in declared}
    assert not missing


def test_the_console_script_runs_each_command():
    assert PROJECT["scripts"] == {"pretext-bench": "benchmarks.console:console"}
    for name in console.COMMANDS:
        assert re.search(rf"^  {name} ", console.__doc__, re.MULTILINE)
    for words, expected in ((["data", "--help"], "pretext data"), (["judge", "knn", "--help"], "downstream knn")):
        done = subprocess.run(
            [sys.executable, "-c", "from benchmarks.console import console; console()", *words],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0 and expected in done.stdout, done.stderr
    with pytest.raises(UserError, match=r"unknown command 'serch'; did you mean 'search'\?"):
        console.main(["serch"])


def test_a_package_that_lies_elsewhere_is_named(tmp_path, monkeypatch):
    installation.check_installation()
    (tmp_path / "downstream").mkdir()
    (tmp_path / "downstream" / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "downstream", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"the package downstream comes from .*, and pretext from .*environment of its"):
        installation.check_installation()


def test_a_package_that_another_distribution_has_overwritten_is_named(monkeypatch):
    sound = {"retrieval": bytes(32)}
    monkeypatch.setattr(installation, "_installed", lambda: sound)
    with pytest.raises(UserError, match="another distribution has overwritten the package retrieval"):
        installation.check_installation()


def test_results_of_an_installed_wheel_carry_its_version(tmp_path, monkeypatch):
    monkeypatch.setattr(revision, "ROOT", tmp_path)
    monkeypatch.setattr(revision, "version", lambda: "1.2.3")
    assert revision.revision.__wrapped__() == ("v1.2.3", False)
    monkeypatch.setattr(revision, "version", lambda: "")
    assert revision.revision.__wrapped__() == ("", False)
