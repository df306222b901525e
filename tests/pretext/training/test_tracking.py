"""Trackers: what TensorBoard's files hold after a run, a user's own file, and that the run does not depend on them."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training_samples import fail_to_save, run, stop_in_step

from pretext.system.errors import UserError

pytestmark = pytest.mark.slow

GUIDE = Path(__file__).parents[3] / "docs" / "training.md"
WATCHED = {"log_every": 1, "watch": "knn", "watch_every": 3, "track": ("tensorboard",)}


def log_of(out):
    """Return the numbers of log.jsonl as float32, by tag and step."""
    found = {}
    for line in (out / "log.jsonl").read_text().splitlines():
        row = json.loads(line)
        step = row.pop("step")
        for name, value in row.items():
            for tag, number in value.items() if isinstance(value, dict) else [(None, value)]:
                found.setdefault(name if tag is None else f"{name}/{tag}", []).append((step, float(np.float32(number))))
    return found


def events_of(out):
    """Return the scalars of all event files, as TensorBoard itself reads them, and the images by step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    read.Reload()
    tags = read.Tags()
    scalars = {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in tags["scalars"]}
    images = {event.step: event.encoded_image_string for tag in tags["images"] for event in read.Images(tag)}
    return scalars, images


def pixels(png):
    with Image.open(io.BytesIO(png)) as opened:
        return np.asarray(opened)


def test_event_files_hold_what_the_log_holds(tmp_path):
    plain = run(tmp_path / "plain").read_bytes()
    assert run(tmp_path / "run", **WATCHED, samples=2).read_bytes() == plain
    scalars, images = events_of(tmp_path / "run")
    assert scalars == log_of(tmp_path / "run")
    assert [step for step, _ in scalars["watch/knn_top1"]] == [3, 6] and len(scalars["loss/generator"]) == 6
    sheets = {int(file.stem[5:]): file.read_bytes() for file in (tmp_path / "run" / "samples").iterdir()}
    assert sheets.keys() == images.keys() == {3, 6}
    assert all((pixels(sheets[step]) == pixels(images[step])).all() for step in sheets)


def test_a_stopped_run_goes_on_in_the_event_files(tmp_path, monkeypatch):
    stop_in_step(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, **WATCHED)
    monkeypatch.undo()
    run(tmp_path, **WATCHED)
    assert events_of(tmp_path)[0] == log_of(tmp_path)


def test_steps_that_a_killed_run_takes_again_are_shown_once(tmp_path, monkeypatch):
    fail_to_save(monkeypatch, step=4)
    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path, **WATCHED, checkpoint_seconds=0.0)
    monkeypatch.undo()
    assert [step for step, _ in events_of(tmp_path)[0]["loss/generator"]] == [1, 2, 3, 4]
    run(tmp_path, **WATCHED)
    scalars, _ = events_of(tmp_path)
    assert [step for step, _ in scalars["loss/generator"]] == [1, 2, 3, 4, 5, 6] and scalars == log_of(tmp_path)


def example():
    (code,) = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    return code


def test_the_example_is_short_and_receives_every_line(tmp_path):
    assert len(example().splitlines()) <= 25
    file = tmp_path / "losses.py"
    file.write_text(example())
    plain = run(tmp_path / "plain").read_bytes()
    assert run(tmp_path / "run", track=(str(file),)).read_bytes() == plain
    rows = list(csv.reader((tmp_path / "run" / "losses.csv").read_text().splitlines()))
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [(int(step), player, float(loss)) for step, player, loss in rows] == [
        (row["step"], player, loss) for row in logged for player, loss in row["loss"].items()
    ]


RECORDER = """
import json
class Recorder:
    def __init__(self, out, settings, step):
        self.file = (out / "recorded.jsonl").open("a")
        self.write("open", settings["task"], step)
    def write(self, *words):
        self.file.write(json.dumps(words) + "\\n")
    def line(self, row):
        self.write("line", row["step"])
    def image(self, name, path, step):
        self.write("image", name, path.is_file(), step)
    def close(self):
        self.write("close")
        self.file.close()
open_tracker = Recorder
"""


def test_a_file_of_ones_own_is_opened_fed_and_closed(tmp_path, monkeypatch):
    file = tmp_path / "recorder.py"
    file.write_text(RECORDER)
    stop_in_step(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", track=(str(file),), samples=1)
    monkeypatch.undo()
    run(tmp_path / "run", track=(str(file),), samples=1)
    recorded = [json.loads(line) for line in (tmp_path / "run" / "recorded.jsonl").read_text().splitlines()]
    assert recorded == [
        ["open", "context_encoder", 0],
        ["line", 2],
        ["close"],
        ["open", "context_encoder", 3],
        ["line", 4],
        ["line", 6],
        ["image", "samples", True, 6],
        ["close"],
    ]


def test_a_tracker_that_fails_does_not_end_the_run(tmp_path, capsys):
    file = tmp_path / "broken.py"
    file.write_text(RECORDER.replace('self.write("line", row["step"])', 'raise OSError("no route\\nto host")'))
    assert run(tmp_path / "run", track=(str(file),)).is_file()
    said = [line for line in capsys.readouterr().err.splitlines() if "--track" in line]
    assert said == [f"run: --track {file}: OSError: no route\\nto host; the run goes on without this tracker"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (None, r"tracker .*mine\.py: No such file or directory"),
        ("(", r"mine\.py, line 1: SyntaxError"),
        ("x = 1", r"mine\.py has no function open_tracker\(out, settings, step\); docs/training\.md has an example"),
        ("def open_tracker(out, settings, step):\n    return 1 / 0", r"mine\.py, line 2: ZeroDivisionError"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path, code, message):
    file = tmp_path / "mine.py"
    if code is not None:
        file.write_text(code)
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", track=(str(file),))
    assert not list((tmp_path / "run").glob("*.safetensors"))


def test_an_unknown_or_missing_tracker_is_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"--track tensorbord: no such tracker; did you mean 'tensorboard'\?"):
        run(tmp_path / "run", track=("tensorbord",))
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UserError, match=r"TensorBoard is not installed; run pip install 'pretext-bench\[track\]'"):
        run(tmp_path / "run", track=("tensorboard",))
    assert not (tmp_path / "run").exists()
    assert run(tmp_path / "run", steps=1).is_file()  # without it, too
