"""Every task and every probe through its command line: all flags can be read, and the first step can be taken."""

from __future__ import annotations

import json

import pytest

import downstream.__main__ as downstream_command
import downstream.probes
import pretext.__main__ as pretext_command
from downstream.fitting import FittedProbe
from pretext.judging import probes_in
from pretext.system.command_line import parse, settings_in, with_settings
from pretext.tasks import task_class, task_config, task_names, task_training

DATA = "scenes?size=32&train=64&val=16&test=16"
TOKENS = "timm:test_vit?patch_size=8"
PROBES = probes_in(downstream.probes)


@pytest.mark.parametrize("name", task_names())
def test_all_flags_of_a_task_can_be_read(name):
    config = task_config(name)
    options = parse(pretext_command._flags_of(name, config), [name, "--data", DATA, "--images", "640"], prog="p")
    assert options.loop.images == 640
    assert settings_in(options, field="task_settings", kind=type(config)) == config
    for flag, value in task_training(name).items():
        assert getattr(options.loop, flag, getattr(options, flag, None)) == value


@pytest.mark.parametrize("name", ["kmeans", "data_dependent"])
def test_a_setting_whose_name_the_command_has_is_a_flag_with_a_prefix(name):
    command = pretext_command._flags_of(name, task_config(name))
    options = parse(command, [name, "--data", DATA, "--images", "640", "--task-images", "32"], prog="p")
    assert (options.loop.images, options.task_settings.images) == (640, 32)
    assert "--task-images N" in pretext_command._help(name)


@pytest.mark.parametrize("name", PROBES)
def test_all_flags_of_a_probe_can_be_read(name):
    kind = PROBES[name]
    command = with_settings(downstream_command.Judge, kind(), field="probe", prefix="probe")
    options = parse(command, ["--encoder", "random:alexnet", "--data", DATA, "--seed", "3"], prog="p")
    assert settings_in(options, field="probe", kind=kind) == kind(seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", task_names())
def test_a_task_takes_its_first_step_from_the_command_line(name, tmp_path):
    published = task_training(name)
    flags = ["--data", DATA, "--steps", "1", "--batch-size", "8", "--workers", "0", "--out", str(tmp_path)]
    if "image_size" not in published:
        flags += ["--image-size", "32"]
    if "encoder" not in published:
        flags += ["--encoder", TOKENS if needs_tokens(name) else "alexnet?width=0.125&stem_stride=1"]
    assert pretext_command.main(["train", name, *flags]) == 0
    about = json.loads((tmp_path / "run.json").read_text())
    assert (about["task"], about["images_seen"] > 0) == (name, name != "random:untouched")
    assert (tmp_path / "encoder.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBES)
def test_a_probe_judges_from_the_command_line(name, tmp_path):
    flags = ["--encoder", "random:alexnet?width=0.125&stem_stride=2", "--image-size", "32", "--data", DATA]
    if issubclass(PROBES[name], FittedProbe):
        flags += ["--steps", "1"]
    if name == "low_shot":
        flags += ["--steps", "1", "--epochs", "0"]
    assert downstream_command.main([name, *flags, "--out", str(tmp_path)]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert sum(score["headline"] for score in scores) == 1


def needs_tokens(name):
    """Whether a task reads a transformer's tokens: its module imports what makes them."""
    module = task_class(name).__module__
    return module.rsplit(".", 1)[-1] in {"mae", "simmim", "ijepa"} or name in {"moco:v3", "moco:v3_paper"}
