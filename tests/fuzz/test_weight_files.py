"""External weight files of every format, damaged or of another content: loaded, or refused by one line; never run."""

from __future__ import annotations

import io
import pickle
import random
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from damage_samples import damaged
from fuzz_samples import check, share
from safetensors.torch import save

from pretext.encoders import build_encoder, load_encoder

ENCODER = "alexnet?width=0.1&stem_stride=2"
RAN: list[object] = []
"""Receives an entry if code of a file is ever run."""


class Runs:
    """Unpickled, this would call `RAN.append`."""

    def __reduce__(self):
        return (RAN.append, (1,))


def torch_file(found, old=False) -> bytes:
    content = io.BytesIO()
    torch.save(found, content, _use_new_zipfile_serialization=not old)
    return content.getvalue()


def tensors() -> dict[str, torch.Tensor]:
    return build_encoder(ENCODER, input_size=32, seed=0).state_dict()


def found_things(drawn: random.Random) -> object:
    """Return what somebody may have saved in place of a state dict."""
    state = dict(tensors())
    name = drawn.choice(list(state))
    choices = [
        lambda: {"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3},
        lambda: {**state, name: drawn.choice([None, 3, "x", [1], Runs(), np.zeros(3), state[name].half(), Path("x")])},
        lambda: {**state, name: torch.zeros(drawn.choice([(), (0,), (1, 1, 1, 1), (7,)]))},
        lambda: {**state, name: torch.full_like(state[name].float(), drawn.choice([float("nan"), float("inf"), 1e38]))},
        lambda: {key: value for key, value in state.items() if key != name},
        lambda: {**state, drawn.choice(["", ".", "a\nb", "\x1b[31m", "x" * 3000, "é"]): torch.zeros(2)},
        lambda: {**state, name: state[name].to(drawn.choice([torch.complex64, torch.int8, torch.bool, torch.float64]))},
        lambda: {**state, name: state[name].to_sparse()},
        lambda: drawn.choice([None, [], {}, 3, "x", state[name], [state], (state,), Runs(), {1: state}, {None: 1}]),
        lambda: {f"encoder_{k}.{key}": value for k in "qk" for key, value in state.items()},
        lambda: {"a": {"b": {"c": {"d": state}}}},
        lambda: {**state, "self": torch.nn.Linear(2, 2)},
        lambda: torch.nn.Linear(2, 2).state_dict(),
    ]
    return drawn.choice(choices)()


def archive(drawn: random.Random) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        for name in drawn.sample(["a/data.pkl", "data.pkl", "a/version", "a/data/0", "../../x", "a/byteorder"], 3):
            made.writestr(
                name, drawn.choice([b"", b"3\n", b"little", pickle.dumps({"a": Runs()}), drawn.randbytes(50)])
            )
    return content.getvalue()


def tar(drawn: random.Random) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as made:
        made.addfile(tarfile.TarInfo(drawn.choice(["storages", "tensors", "pickle", "../x"])))
    return content.getvalue()


def npz(drawn: random.Random) -> bytes:
    content = io.BytesIO()
    np.savez(content, a=np.zeros(3), b=np.array([Runs()], dtype=object) if drawn.random() < 0.5 else np.ones(2))
    return content.getvalue()


FORMATS = {
    ".pth": lambda drawn: torch_file(found_things(drawn)),
    ".pt": lambda drawn: torch_file(found_things(drawn), old=True),
    ".safetensors": lambda drawn: save(tensors()),
    ".pkl": lambda drawn: pickle.dumps(found_things(drawn), protocol=drawn.randrange(6)),
    ".npz": npz,
    ".zip": archive,
    ".tar": tar,
    ".ckpt": lambda drawn: drawn.choice(
        [b"", b"\x80", b"\x80\x04.", b"{}", b"<html>", b"version https://git-lfs", b"\x1f\x8b"]
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_weight_file_is_loaded_or_refused(suffix, tmp_path):
    def load(drawn):
        content = FORMATS[suffix](drawn)
        if content and drawn.random() < (0.9 if suffix == ".safetensors" else 0.5):
            way, content = damaged(content, drawn)
            drawn.about.append(way)
        file = tmp_path / f"weights{drawn.choice([suffix, suffix, suffix, *FORMATS])}"
        file.write_bytes(content)
        more = drawn.choice(["", "", "&allow_partial=true", "&prefix=encoder_q", "&prefix="])
        drawn.about.append(more)
        try:
            load_encoder(f"{ENCODER}&weights={file}{more}", input_size=32)
        finally:
            assert not RAN, "the file's code was run"

    check(f"weights{suffix}", share("weight files", suffix, list(FORMATS)), load)
