"""The maps of the packages, the size of files, and the words of help texts."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from longest_files import LONGEST

import pretext

ROOT = Path(pretext.__file__).parents[1]
PACKAGES = sorted(
    file.parent
    for top in ("pretext", "downstream", "retrieval", "benchmarks")
    for file in (ROOT / top).rglob("__init__.py")
)
MODULES = sorted(
    file for top in ("pretext", "downstream", "retrieval", "benchmarks") for file in (ROOT / top).rglob("*.py")
)
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def relative(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("package", PACKAGES, ids=relative)
def test_the_map_of_a_package_names_every_module(package):
    about = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    rooms = {path.stem for path in package.glob("*.py")} | {path.parent.name for path in package.glob("*/__init__.py")}
    missing = {room for room in rooms if not re.search(rf"\b{re.escape(room)}\b", about)} - {"__init__", "__main__"}
    assert not missing


@pytest.mark.parametrize("file", MODULES, ids=relative)
def test_a_field_says_what_it_does(file):
    """Field docstrings are the user's `--help`: at least three words, and none begins with "Of"."""
    for kind in ast.walk(ast.parse(file.read_text())):
        if not isinstance(kind, ast.ClassDef):
            continue
        for field, about in zip(kind.body, kind.body[1:], strict=False):
            if not isinstance(field, ast.AnnAssign) or not isinstance(about, ast.Expr):
                continue
            if isinstance(about.value, ast.Constant) and isinstance(text := about.value.value, str):
                assert len(text.split()) >= 3, (field.lineno, text)
                assert not text.startswith("Of "), (field.lineno, text)


@pytest.mark.parametrize("file", [*MODULES, *TESTS], ids=relative)
def test_a_file_is_not_too_long_and_no_test_imports_another(file):
    text = file.read_text()
    assert text.count("\n") <= 400 if file in TESTS else text.count("\n") <= 320
    if file in TESTS:
        assert not re.search(r"^\s*(from|import) test_", text, re.MULTILINE)


def test_the_files_that_come_first_exist():
    assert {*LONGEST} <= {file.stem for file in TESTS}
