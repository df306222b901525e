"""Every command in the documentation: its flags are parsed by the command itself, without running it."""

from __future__ import annotations

import argparse
import importlib
import re
import runpy
import sys
import tomllib

import pytest
from documentation_samples import PAGES, ROOT, commands_in, write_own_files

from pretext.system import command_line
from pretext.system.errors import UserError

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()


class Parsed(BaseException):
    """A command line has been read; what follows would be the work itself."""


COMMANDS = [
    pytest.param(words, id=f"{page.stem}: {' '.join(words)[:90]}")
    for page in PAGES
    for words in commands_in(page.read_text())
]


@pytest.fixture
def parse_only(monkeypatch, tmp_path):
    """Let every command stop once its flags are read, in a folder with the files of one's own that the guide shows."""
    check, parse_args = command_line.check_numbers, argparse.ArgumentParser.parse_args

    def checked(options):
        check(options)
        raise Parsed

    def parsed(self, *args):
        parse_args(self, *args)
        raise Parsed

    monkeypatch.setattr(command_line, "check_numbers", checked)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    monkeypatch.chdir(tmp_path)
    write_own_files(tmp_path)
    return monkeypatch


def is_read(call, *args):
    """Return whether a command reads its flags, or does what needs none: print a list or its help."""
    try:
        return call(*args) == 0
    except Parsed:
        return True
    except SystemExit as leaving:
        return not leaving.code


def run_python(words, monkeypatch):
    if words[:1] == ["-m"]:
        module, argv = words[1], words[2:]
        if module == "pytest":
            return all((ROOT / word).exists() for word in argv if "/" in word)
        if module in ("venv", "pip"):
            return True
        return is_read(importlib.import_module(f"{module}.__main__").main, argv)
    file, argv = words[0], words[1:]
    if file == "benchmarks/run_all.py":
        return is_read(importlib.import_module("benchmarks.run_all").main, argv)
    if not argv:
        return (ROOT / file).is_file()
    monkeypatch.setattr(sys, "argv", [file, *argv])
    monkeypatch.syspath_prepend(str((ROOT / file).parent))
    return is_read(lambda: runpy.run_path(str(ROOT / file), run_name="__main__"))


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_of_the_documentation_is_understood(words, parse_only, capsys):
    program, argv = words[0].rpartition("/")[2], words[1:]
    if program in ("python", "python3"):
        assert run_python(argv, parse_only)
    elif program == "pretext-bench":
        assert is_read(importlib.import_module("benchmarks.console").main, argv)
    elif program == "make":
        assert re.search(rf"^{argv[0]}:", MAKEFILE, re.MULTILINE)
    elif program == "pip":
        assert argv[0] == "install"
        for extra in re.findall(r"\[(\w+)\]", argv[-1]):
            assert extra in PROJECT["optional-dependencies"]
    else:
        assert program in {"ruff", "mypy", "lint-imports", "jupyter", "mkdocs"}


def test_the_pages_hold_commands_of_every_program():
    found = {param.values[0][0] for param in COMMANDS}
    assert {"python", "pretext-bench", "make", ".venv/bin/python"} <= found
    assert len(COMMANDS) > 80


@pytest.mark.parametrize(
    "words",
    [
        "python -m pretext train context_encoder --data scenes --picturs 3",
        "python -m downstream linear --encoder e --data d --trainimages 3",
        "python benchmarks/run_all.py --profil smoke",
        "pretext-bench jugde linear",
        "python benchmarks/timing/speed.py --pears",
    ],
)
def test_a_wrong_flag_is_seen(words, parse_only):
    with pytest.raises((UserError, AssertionError)):
        test_a_command_of_the_documentation_is_understood(words.split(), parse_only, None)


def test_commands_of_ci_are_those_of_the_makefile():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    for command in re.findall(r"- run: (.+)", workflow):
        assert command == ".ci/run" or re.search(rf"^{command.removeprefix('make ')}:", MAKEFILE, re.MULTILINE), command
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert f'"{oldest}"' in workflow
