"""What `--help` prints, of every command: at once, in 80 columns, with two examples that can be typed."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import shlex
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import downstream.__main__ as downstream_command
import pretext.__main__ as pretext_command
import retrieval.__main__ as retrieval_command
from benchmarks import commands, run_all
from benchmarks.options import PROFILE_NAMES, Options
from downstream.probes import detection
from pretext.judging import probes_in
from pretext.system import catalogue, declarations
from pretext.system.declarations import REQUIRED, Declared, read_class
from pretext.system.errors import UserError
from pretext.system.help_page import HelpPage, groups_of
from pretext.tasks import task_class, task_names
from pretext.training.config import TrainConfig

ROOT = Path(run_all.__file__).parents[1]
PROBES = sorted(catalogue.declared_probes("downstream.probes"))
COMMANDS = [
    "-m pretext --help",
    "-m pretext list",
    "-m pretext list data",
    "-m pretext train --help",
    "-m pretext train context_encoder:adversarial -h",
    "-m pretext inpaint --help",
    "-m pretext embed --help",
    "-m pretext data --help",
    "-m pretext export --help",
    "-m downstream --help",
    "-m downstream detection --help",
    *(f"-m retrieval {command}--help" for command in ("", "index ", "search ", "inpaint ", "demo ")),
    "benchmarks/timing/speed.py --help",
    "-m benchmarks.interval_simulation --help",
    *(f"benchmarks/run_all.py {command}--help" for command in ("", "status ", "compare ", "reproduce ", "clean ")),
]
IN_PROCESS = """
import runpy, sys
sys.path.insert(0, {root!r})
sys.argv = {argv!r}
try:
    runpy.{run}
except SystemExit as left:
    assert not left.code, left.code
heavy = {{"torch", "torchvision", "numpy", "pandas", "faiss", "matplotlib", "sklearn"}} & set(sys.modules)
assert not heavy, heavy
"""


def run(command):
    """Print a command's help in a process of its own, which fails if it imports what takes long."""
    words = shlex.split(command)
    if words[0] == "-m":
        argv, how = words[1:], f'run_module({words[1]!r}, run_name="__main__", alter_sys=True)'
    else:
        argv, how = words, f'run_path({words[0]!r}, run_name="__main__")'
    code = IN_PROCESS.format(root=str(ROOT), argv=argv, run=how)
    env = os.environ | {"COLUMNS": "80"}
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_that_takes_long_and_fits_80_columns(command):
    done = run(command)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []


def pages():
    """Every help page, by the command that prints it."""
    found = {"pretext train": pretext_command._help(""), "run_all": run_all._help()}
    found |= {f"pretext train {name}": pretext_command._help(name) for name in task_names()}
    found |= {f"downstream {name}": downstream_command._help(name) for name in PROBES}
    for name, home in {
        **{f"retrieval {name}": home for name, home in retrieval_command.OPTIONS.items()},
        "pretext inpaint": "pretext.inpainting.command:Inpaint",
        "pretext embed": "pretext.embedding.command:Embed",
        "pretext data": "pretext.auditing.command:Data",
        "pretext export": "pretext.exporting.command:Export",
        "speed": "benchmarks.timing.measuring:Speed",
        "interval_simulation": "benchmarks.interval_simulation.__main__:Simulation",
        **{f"run_all {kind.__name__}": f"benchmarks.commands:{kind.__name__}" for kind in SUBCOMMANDS},
    }.items():
        declared = read_class(home)
        found[name] = HelpPage(name, declared.about, groups_of(declared, rest="flags")).text(80)
    return found


SUBCOMMANDS = (commands.Progress, commands.Compare, commands.Reproduce, commands.Clean)
PAGES = pages()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_with_two_examples_whose_flags_exist(name):
    page = PAGES[name]
    examples = page.partition("examples:\n")[2].partition("\n\n")[0].replace("\\\n", " ").strip().splitlines()
    assert len(examples) == 2
    shown = set(
        re.findall(r"(?<![\w-])(?:--(?:\[no-\])?[\w-]+|-[kn]\b)", page.partition("examples:")[2].partition("\n\n")[2])
    )
    for example in examples:
        assert example.strip().startswith("python ")
        used = {word for word in shlex.split(example) if re.match(r"--?[a-z]", word) and word != "-m"}
        assert used <= shown, used - shown


@pytest.mark.parametrize("name", PAGES)
def test_every_flag_says_what_it_does(name):
    entries = re.split(r"\n  (?=-|[A-Z]{2,} )", PAGES[name].partition("examples:")[2])[1:]
    assert entries
    for entry in entries:
        flag, about = entry.split("\n\n")[0].split(maxsplit=1)
        words = re.sub(r"\(default: .*|\(required\)", "", about, flags=re.DOTALL).split()
        assert len(words) >= 3, (flag, about)


def test_the_comparison_names_its_commands_profiles_probes_and_tasks():
    page = PAGES["run_all"]
    for name in ("status", "compare", "reproduce", "clean", *PROFILE_NAMES, *PROBES, "retrieval", "inpainting"):
        assert re.search(rf"\b{name}\b", page), name
    assert set(re.split(r"[,\s]+", page.partition("\ntasks:\n")[2].strip())) == {
        name for name in task_names() if ":" not in name
    }


def test_a_variant_shows_the_defaults_that_it_was_published_with():
    page = PAGES["pretext train context_encoder:released"]
    for flag, default in {
        "--image-size": "128",
        "--learning-rate": "0.002",
        "--mask": "central",
        "--overlap": "4",
    }.items():
        assert re.search(rf"{flag} .*?\(default:\s+{default}\)", page, re.DOTALL), flag


def test_the_list_says_of_every_variant_what_it_differs_in(capsys):
    pretext_command.main(["list"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    variants = [line for line in lines if line.strip().startswith(":")]
    assert len(variants) == sum(":" in name for name in task_names())
    assert all(len(line.split()) >= 3 for line in variants)


# What is read from the source is what Python makes of it


def declared_and_real():
    """Yield the same dataclass as its source text declares it and as it is when imported."""
    yield "TrainConfig", read_class("pretext.training.config:TrainConfig"), TrainConfig
    yield "Options", read_class("benchmarks.options:Options"), Options
    for name, task in catalogue.declared_tasks().items():
        yield name, task.config, task_class(name).Config
    from downstream import probes as package

    for name, kind in probes_in(package).items():
        yield name, catalogue.declared_probes("downstream.probes")[name], kind


SAME = [pytest.param(declared, real, id=name) for name, declared, real in declared_and_real()]


@pytest.mark.parametrize(("declared", "real"), SAME)
def test_settings_are_those_of_the_class(declared: Declared, real):
    settings = {setting.name: setting for setting in declared.settings()}
    fields = dataclasses.fields(real)
    assert list(settings) == [field.name for field in fields]
    hints = typing.get_type_hints(real)
    for field in fields:
        shown = settings[field.name].default
        if shown is REQUIRED:
            assert field.default is dataclasses.MISSING
        elif isinstance(shown, str) and not isinstance(field.default, str):
            assert eval(shown, {}) == field.default  # `4 / 3` in our own source
        else:
            assert shown == field.default
        if hints[field.name] is bool:
            assert settings[field.name].values == declarations.SWITCH
        assert settings[field.name].help


def test_tasks_variants_and_published_settings_are_those_of_the_classes():
    declared = catalogue.declared_tasks()
    assert sorted(declared) == sorted(name for name in task_names() if ":" not in name)
    for name, task in declared.items():
        kind = task_class(name)
        assert {variant: kind.Config(**changed) for variant, changed in task.variants.items()} == dict(kind.variants)
        assert {key: dict(value) for key, value in kind.training_defaults.items()} == dict(task.training_defaults)
        assert set(task.variant_help) == set(task.variants)


def test_a_users_file_with_a_flag_of_the_commands_is_one_line(tmp_path):
    task = tmp_path / "mine.py"
    task.write_text(
        '"""Mine."""\nfrom dataclasses import dataclass\nfrom typing import final\nfrom pretext.tasks import Task\n\n'
        "@final\nclass Mine(Task):\n    @dataclass(frozen=True)\n    class Config:\n        warmup: int = 3\n\n"
        "    def __init__(self, encoder, config):\n        super().__init__(encoder)\n\n"
        "    def losses(self, batch):\n        yield from ()\n"
    )
    probe = tmp_path / "own.py"
    probe.write_text(
        "from dataclasses import dataclass\nfrom pretext.judging import Probe\n\n"
        "@dataclass(frozen=True)\nclass Own(Probe):\n    device: str = 'x'\n\n"
        "    def evaluate(self, encoder, data, out=None):\n        yield from ()\n"
    )
    for main, argv in (
        (pretext_command.main, ["train", str(task), "--data", "scenes"]),
        (downstream_command.main, [str(probe), "--encoder", "random:alexnet", "--data", "scenes"]),
    ):
        for help_flag in ([], ["--help"]):
            with pytest.raises(UserError, match=r"\.py: its setting (warmup|device) has the name of a flag") as caught:
                main([*argv, *help_flag])
            assert "\n" not in str(caught.value)


def test_module_names_resolve_without_importing_the_package():
    assert read_class("downstream.probes.detection:Detection").about == detection.Detection.__doc__.strip().replace(
        "\n    ", "\n"
    )
    with pytest.raises(ModuleNotFoundError):
        declarations.read_module("pretext.nowhere")
    with pytest.raises(LookupError):
        read_class("pretext.training.config:Nothing")
    assert not [a for a, b in itertools.pairwise(task_names()) if a == b]


def test_a_very_narrow_terminal_gets_a_page_too(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "1")
    assert pretext_command.main(["data", "--help"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 50
