"""Numbers that nothing can use: every setting of every probe, task and command refuses them in one line."""

from __future__ import annotations

import dataclasses
import math
import types
import typing

import pytest

import downstream.__main__ as judge
from benchmarks.options import Options
from benchmarks.planning.cells import Inpainting
from benchmarks.planning.probes import probe_types
from downstream.probes.svm import Svm
from pretext.datasets import open_dataset
from pretext.encoders import build_encoder
from pretext.system.command_line import parse
from pretext.system.errors import UserError
from pretext.system.ranges import MOST_SEED, check_numbers
from pretext.system.specs import path_of
from pretext.tasks import task_class, task_config, task_names
from pretext.training.config import TrainConfig
from retrieval.index_command import Index

PROBES = {**probe_types(), "inpainting": Inpainting}
SETTINGS = {**PROBES, "train": TrainConfig, "options": Options}
NEVER = (math.inf, -math.inf, math.nan, 2**64, -(2**64))
WRONG = (*NEVER, -1, 0, 2**32)


def numbers(cls):
    """Yield name and shape, one or many, of every field that holds numbers."""
    for field, hint in typing.get_type_hints(cls).items():
        if field not in {each.name for each in dataclasses.fields(cls)}:
            continue
        kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        many = [typing.get_args(kind)[0] for kind in kinds if typing.get_origin(kind) is tuple]
        if {int, float} & {*kinds, *many}:
            yield field, bool(many)


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_refuse_what_is_no_number_and_seeds_beyond_32_bits(name):
    cls = SETTINGS[name]
    made = cls()
    for field, many in numbers(cls):
        for value in WRONG:
            given = (value,) if many else value
            try:
                dataclasses.replace(made, **{field: given})
                if name == "options":
                    check_numbers(dataclasses.replace(made, **{field: given}))
            except ValueError as error:
                assert "\n" not in str(error)
                continue
            whole = many and isinstance(made_of := getattr(made, field), tuple) and {*map(type, made_of)} <= {int}
            assert value not in NEVER or (whole and isinstance(value, float)), (field, value)  # no flag gives it
            assert field != "seed" or 0 <= value <= MOST_SEED


@pytest.mark.parametrize("task", task_names())
def test_tasks_refuse_them_too(task):
    cls = task_class(task).Config
    for field, many in numbers(cls):
        for value in WRONG:
            given = (value,) if many else value
            try:
                dataclasses.replace(cls(), **{field: given})
            except ValueError as error:
                assert "\n" not in str(error)
            if many:
                continue
            try:
                task_config(f"{task}?{field}={value}")
            except UserError as error:
                assert "\n" not in str(error)
                continue
            assert value not in NEVER[:3], (field, value)


@pytest.mark.parametrize(
    "words",
    [
        "--seed -1",
        f"--seed {2**32}",
        "--seconds inf",
        "--epochs 1e300",
        "--batch-size 1000000000",
        "--learning-rate nan",
        f"--workers {2**64}",
        "--samples 1000000",
    ],
)
def test_flags_are_checked(words):
    with pytest.raises(UserError, match=r"p: \w+ is \S+; (allowed|give)"):
        parse(TrainConfig, words.split(), prog="p")


@pytest.mark.parametrize("width", ["inf", "nan", "1e30"])
def test_specs_are_checked(width):
    for spec in (f"autoencoder?decoder_width={width}", f"context_encoder:adversarial?discriminator_width={width}"):
        with pytest.raises(UserError, match=rf"_width is {width}; (allowed|give)|_width is 1e\+30; allowed is at most"):
            task_config(spec)
    with pytest.raises(UserError, match=f"width is {width}|width is 1e"):
        build_encoder(f"alexnet?width={width}", input_size=32, seed=0)
    with pytest.raises(UserError, match="scenes: seed=-1; expected 0 or more"):
        open_dataset("scenes?size=32&seed=-1")


@pytest.mark.parametrize(("setting", "value"), [("samples", 10**9), ("folds", 2**62)])
def test_what_would_never_end_is_refused(setting, value):
    with pytest.raises(ValueError, match=f"{setting} is {value}; allowed is at most"):
        Svm(**{setting: value})


@pytest.mark.parametrize(("setting", "value"), [("grid", 100_000), ("pool", 1_000)])
def test_regions_without_number_are_refused(setting, value):
    words = f"--encoder e --data scenes --out i --{setting} {value}"
    with pytest.raises(UserError, match=f"p: {setting} is {value}; allowed is at most"):
        parse(Index, words.split(), prog="p")


def test_a_huge_number_of_seeds_and_a_size_of_nothing_are_refused():
    with pytest.raises(ValueError, match="--seeds is 1000000000; allowed is from 1 to 1000"):
        Options(seeds=1_000_000_000)
    words = "knn --encoder random:alexnet --data scenes?size=32 --image-size"
    for size in ("0", "-3", str(2**62)):
        with pytest.raises(UserError, match=f"image-size is {size}; allowed is from 8 to"):
            judge.main([*words.split(), size])


@pytest.mark.parametrize("kind", ["folder", "voc", "coco", "cifar10"])
def test_the_home_of_nobody_is_one_line(kind):
    with pytest.raises(UserError, match="~nosuchuser is nobody's home folder; write the whole path") as caught:
        open_dataset(f"{kind}:~nosuchuser/x")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="nobody's home"):
        path_of("~nosuchuser")
    with pytest.raises(UserError, match="nobody's home"):
        open_dataset("~nosuchuser/pictures")
