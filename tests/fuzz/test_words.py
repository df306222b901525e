"""What users type: specs and the flags of every command, with values of every kind."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import random
import re
import string
from pathlib import Path

import dataset_samples
import numpy as np
import pytest
from damage_samples import ODD
from fuzz_samples import BEGUN, check, command, share
from index_samples import build, opened, photographs
from training_samples import run

import downstream.__main__ as judge_command
import pretext.__main__ as pretext_command
import retrieval.__main__ as retrieval_command
from benchmarks import run_all
from pretext.datasets import ImageDataset, dataset_kinds, open_dataset
from pretext.encoders import build_encoder, load_encoder
from pretext.system.errors import UserError
from pretext.tasks import task_class, task_config, task_names
from retrieval.indexing.factory import make_vectors
from retrieval.regions import Regions

VALUES = [*(odd for odd in ODD if len(odd) < 500), "9" * 500, "-0", "0x10", "1_000", "1e-400", "inf", "nan", "+5", " 1"]
VALUES += ["\ufeff1", "٣", "½", "--", "-", "=", "~", "~nosuchuser/x", "/dev/null", "/dev/zero", "/", ".", "..", "%00"]
VALUES += [
    "%ff",
    "\udcff",
    "a b",
    "a\nb",
    "\x1b[31m",
    "x" * 5000,
    "none",
    "None",
    "True",
    "cpu",
    "cuda:99",
    "meta",
    "xla",
]
VALUES += ["2147483648", "4294967296", "18446744073709551616", "-1", "0", "1", "2", "7", "0.5", "train", "🙂", "\u202e"]
ALPHABET = string.ascii_letters + string.digits + "?&=:/,.%+-_~ \t#[]{}()'\"\\é\u2028"


def value_of(drawn: random.Random) -> str:
    if drawn.random() < 0.75:
        return drawn.choice(VALUES)
    return "".join(drawn.choice(ALPHABET) for _ in range(drawn.randint(0, 12)))


def spec_of(starts: list[str], keys: list[str], drawn: random.Random) -> str:
    """Return a spec: a sound start or a changed one, and up to three options."""
    spec = drawn.choice(starts)
    if drawn.random() < 0.2 and spec:
        at = drawn.randrange(len(spec))
        spec = spec[:at] + drawn.choice([value_of(drawn), "", ":", "?", "&"]) + spec[at + drawn.randint(0, 2) :]
    for _ in range(drawn.choice([0, 0, 1, 1, 2])):
        spec += drawn.choice(["&" if "?" in spec else "?"] * 8 + ["?", "&", ""])
        spec += drawn.choice([*keys, value_of(drawn)]) + drawn.choice(["="] * 9 + ["", "=="]) + value_of(drawn)
    return spec


def option_names(cls) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("kinds")
    return {kind: root / kind for kind in dataset_samples.OWN if dataset_samples.make(kind, root / kind)}


def data_spec(folders, drawn):
    starts = ["scenes?train=8&val=4&test=4&size=16", *(f"{kind}:{path}" for kind, path in folders.items())]
    starts += [f"{kind}:{folders['folder']}" for kind in dataset_kinds()]
    keys = ["limit", "train", "val", "test", "classes", "label", "exclude", "year", "sets", "ignore", "images", "masks"]
    spec = spec_of(starts, [*keys, "background", "shortest", "size", "seed", "download", "split"], drawn)
    drawn.about.append(spec)
    data = open_dataset(spec)
    assert isinstance(data, ImageDataset) and data.fingerprint and len(data)
    if len(data) < 1000:
        data[0]


def encoder_spec(folders, drawn):
    starts = [
        "alexnet",
        "alexnet?width=0.1&stem_stride=2",
        "released",
        "timm:resnet18",
        "timm:test_vit",
        "timm",
        "random:alexnet",
    ]
    keys = ["width", "stem_stride", "weights", "prefix", "allow_partial", "normalise", "patch_size", "pretrained"]
    spec = spec_of(starts, [*keys, "img_size", "drop_rate", "num_classes", "features_only", "block"], drawn)
    drawn.about.append(spec)
    build_encoder(spec, input_size=drawn.choice([32, 32, 32, 224, 1, 7, 63]), seed=0)


def task_spec(folders, drawn):
    name = drawn.choice([*task_names()])
    spec = spec_of([name], option_names(task_class(name).Config), drawn)
    drawn.about.append(spec)
    task_config(spec)


def factory_spec(folders, drawn):
    starts = [
        "Flat",
        "IVF4,Flat",
        "IVF4_HNSW32,SQfp16",
        "HNSW32",
        "PQ4",
        "PCA4,Flat",
        "SQ8",
        "LSH",
        "OPQ4,IVF2,PQ4",
        "IVF2,PQ4x4fs",
    ]
    factory = drawn.choice(starts)
    for _ in range(drawn.randint(0, 2)):
        at = drawn.randrange(len(factory) + 1)
        pieces = [
            *starts,
            ",",
            "_",
            "0",
            "-1",
            "99999",
            "x",
            "RR8",
            "L2norm",
            "IDMap",
            "Refine",
            "(",
            "PCAW",
            "R",
            "RFlat",
            "\x00",
        ]
        factory = factory[:at] + drawn.choice(pieces) + factory[at + drawn.randint(0, 4) :]
    drawn.about.append(factory)
    rows = np.random.default_rng(0).normal(size=(60, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    made = make_vectors(16, factory, len(rows), lambda count: rows[:count], iter([rows]))
    made.search(rows[:2], 3)


SPECS = {"data": data_spec, "encoder": encoder_spec, "task": task_spec, "factory": factory_spec}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SPECS)
def test_any_spec_is_used_or_refused(name, folders):
    check(f"{name} spec", share("specs", name, list(SPECS)), lambda drawn: SPECS[name](folders, drawn))


def begin(*given, **options):
    raise UserError(BEGUN)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A training run, an index and a folder of pictures."""
    root = tmp_path_factory.mktemp("made")
    run(root / "run", steps=1, batch_size=8)
    file = root / "run" / "encoder.safetensors"
    pictures = opened(photographs(root / "photographs", range(4)))
    build(load_encoder(file), pictures, Regions(), root / "index", encoder_source=str(file), split="all")
    return root


DATA = "scenes?train=8&val=4&test=4&size=32"
RANDOM = "random:alexnet?width=0.1&stem_stride=2"
COMMAND_LINES = {
    "train": (pretext_command.main, "train TASK --data {data} --encoder alexnet?width=0.1 --image-size 32 --out {new}"),
    "inpaint": (pretext_command.main, "inpaint --checkpoint {root}/run --data {data} --out {new}"),
    "judge": (judge_command.main, "PROBE --encoder " + RANDOM + " --image-size 32 --data {data} --out {new}"),
    "index": (retrieval_command.main, "index --encoder {root}/run/encoder.safetensors --data {data} --out {new}"),
    "search": (retrieval_command.main, "search {root}/index --query 0 -k 2 --out {new}"),
    "fill": (retrieval_command.main, "inpaint --encoder {root}/run/encoder.safetensors --data {data} --out {new}"),
    "demo": (retrieval_command.main, "demo --index {root}/index --port 0"),
    "suite": (run_all.main, "--profile smoke --dry-run --out {new}"),
    "status": (run_all.main, "status --out {root}/run"),
    "compare": (run_all.main, "compare random supervised --out {root}/run"),
    "reproduce": (run_all.main, "reproduce random.knn --out {root}/run"),
    "clean": (run_all.main, "clean --out {root}/new"),
}
WEIGHTS = {"train": 3, "judge": 3, "suite": 3}
LINES = [name for name in COMMAND_LINES for _ in range(WEIGHTS.get(name, 1))]


def flags_of(name: str, first: str) -> list[str]:
    """Return every flag of a command, as its own help shows them."""
    main, line = COMMAND_LINES[name]
    words = [first if word in ("TASK", "PROBE") else word for word in line.split()]
    words = words[: 1 if words[0][0] != "-" else 0]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return re.findall(r"^  (--[a-z][a-z0-9-]+)", printed.getvalue(), re.MULTILINE)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", COMMAND_LINES)
def test_any_flag_is_used_or_refused(name, made, tmp_path, monkeypatch):
    main, line = COMMAND_LINES[name]
    monkeypatch.chdir(tmp_path)
    for where in (
        "pretext.training.loop._run",
        "pretext.inpainting.command.drawn_pictures",
        "downstream.features.split_features",
        "downstream.features.labelled_features",
        "downstream.fitting.fit",
        "retrieval.index_command.build_index",
        "retrieval.filling_command.drawn_pictures",
        "retrieval.demo.server.make_app",
        "benchmarks.executors.schedule.run",
        "benchmarks.forecast.telling.measured",
        "benchmarks.run_all.finish",
        "pretext.encoders.base.Encoder.__call__",
    ):
        monkeypatch.setattr(where, begin)
    firsts = task_names() if name == "train" else list(judge_command.catalogue.declared_probes("downstream.probes"))
    flags: dict[str, list[str]] = {}

    def typed(drawn):
        first = drawn.choice(firsts)
        key = first if "TASK" in line or "PROBE" in line else ""
        known = flags.setdefault(key, flags_of(name, first))
        text = line.format(root=made, data=DATA, new=tmp_path / "new")
        words = [first if word in ("TASK", "PROBE") else word for word in text.split()]
        for _ in range(drawn.choice([1, 1, 1, 2, 3])):
            way = drawn.randrange(10)
            if way < 6 and known:
                flag = drawn.choice(known)
                words += drawn.choice(
                    [
                        [f"{flag}={value_of(drawn)}"],
                        [flag, value_of(drawn)],
                        [flag, *(value_of(drawn) for _ in range(4))],
                    ]
                )
            elif way < 8:
                words[drawn.randrange(len(words))] = value_of(drawn)
            elif way == 8:
                del words[drawn.randrange(len(words))]
            else:
                words.insert(drawn.randrange(len(words) + 1), value_of(drawn))
            words = words or [""]
        drawn.about.append(words)
        command(main, words)

    check(
        f"flags of {name}",
        sum(
            share("flags", f"{i}", [str(n) for n in range(len(LINES))]) for i, each in enumerate(LINES) if each == name
        ),
        typed,
    )
