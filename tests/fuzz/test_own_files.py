"""Tasks and probes in files of a user's own, with lines left out, doubled and changed: used, or refused by one line."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from fuzz_samples import BEGUN, check, command, share

import downstream.__main__ as judge_command
import pretext.__main__ as pretext_command
from benchmarks import run_all
from pretext.system.errors import UserError

GUIDE = Path(__file__).parents[2] / "CONTRIBUTING.md"
LINES = [
    "raise OSError('a\\nb')",
    "import nothing_of_this_name",
    "(",
    "\t x",
    "Config = 3",
    "class Config: pass",
    "losses = None",
]
LINES += [
    "from __future__ import nothing",
    "evaluate = None",
    "1/0",
    "variants = 3",
    "seed: str = 'x'",
    "batch_size: int = 3",
]
LINES += [
    "raise SystemExit(3)",
    "assert False",
    "x: 'Nothing' = 1",
    "@dataclass",
    "del Config",
    "training_defaults = {1: 2}",
]


def example(what: str) -> str:
    section = GUIDE.read_text(encoding="utf-8").split(f"## A {what} of your own")[1].split("## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    return code


def changed(code: str, drawn: random.Random) -> bytes:
    lines = code.splitlines()
    for _ in range(drawn.choice([1, 1, 2])):
        at, way = drawn.randrange(len(lines)), drawn.randrange(6)
        if way == 0:
            del lines[at]
        elif way == 1:
            lines.insert(at, " " * drawn.choice([0, 4, 8, 3]) + drawn.choice(LINES))
        elif way == 2:
            lines[at : at + 1] = lines[at : at + 1] * 2
        elif way == 3:
            words = re.split(r"(\W)", lines[at])
            words[drawn.randrange(len(words))] = drawn.choice(["None", "3", "'x'", "nan", "", "()", "self", "0.5"])
            lines[at] = "".join(words)
        elif way == 4:
            del lines[at:]
        else:
            lines[at : at + 3] = reversed(lines[at : at + 3])
        lines = lines or [""]
    content = "\n".join(lines).encode()
    return drawn.choice(
        [content] * 9 + [content.decode().encode("utf-16"), content[:40] + b"\xff" + content[40:], b"\x00"]
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("what", ["task", "probe"])
def test_a_changed_file_is_used_or_refused(what, tmp_path, monkeypatch):
    def begin(*given, **options):
        raise UserError(BEGUN)

    monkeypatch.setattr("pretext.training.loop._train", begin)
    monkeypatch.setattr("benchmarks.forecast.telling.measured", begin)
    monkeypatch.setattr(judge_command, "_encoder", begin)
    data = ["--data", "scenes?train=8&val=4&test=4&size=32"]

    def use(drawn):
        file = tmp_path / f"{drawn.choice(['mine', 'a-b', '1', 'ä', 'rotation'])}.py"
        file.write_bytes(changed(example(what), drawn))
        drawn.about.append(file.read_bytes()[-200:])
        suite = ["--profile", "smoke", "--dry-run", "--out", str(tmp_path / "out"), f"--{what}s", str(file)]
        if drawn.random() < 0.4:
            command(run_all.main, suite)
        elif drawn.random() < 0.3:
            command(
                {"task": pretext_command, "probe": judge_command}[what].main,
                [*["train"] * (what == "task"), str(file), "--help"],
            )
        elif what == "task":
            command(pretext_command.main, ["train", str(file), *data, "--out", str(tmp_path / "run")])
        else:
            command(judge_command.main, [str(file), "--encoder", "random:alexnet", *data])

    check(f"file of a {what}", share("files of users", what, ["task", "probe"]), use)
