"""Weight files that hold more than tensors: the line names the class and the key, and no code in the file runs."""

from __future__ import annotations

import argparse
import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from weight_file_samples import saved

from pretext.encoders.weights import read_weights
from pretext.system.errors import UserError


class Harm:
    def __reduce__(self):
        return (pytest.fail, ("code in a file was run",))


class Odd:
    """Restored by a call, a state and items."""

    def __reduce__(self):
        return (Odd, (), {"a": 1}, iter([1, 2, 3]), iter([("a", 2)]))


def trained():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(1, 2)).sum().backward()
    optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 7}


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"args": argparse.Namespace(lr=1e-3, data=Path("x"))}, "the key args holds argparse.Namespace"),
        ({"best_acc1": np.float64(61.5)}, ".multiarray.scalar"),
        ({"best_acc1": np.float64(61.5)}, "the key best_acc1 holds numpy"),
        ({"hyper_parameters": {"data": Path("x")}}, "the key hyper_parameters.data holds pathlib"),
        ({"callbacks": [{"when": Harm()}]}, "the key callbacks.when holds _pytest.outcomes._Fail"),
        ({"ema": nn.Linear(2, 2)}, "the key ema holds torch.nn.modules.linear.Linear"),
        ({"odd": Odd()}, "the key odd holds test_refusals.Odd"),
        (
            {"a": Fraction(1), "b": Fraction(2), "c": Fraction(3), "d": Fraction(4)},
            "holds fractions.Fraction and 1 more",
        ),
        ({"type": Fraction}, "the key type holds fractions.Fraction"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_the_line_names_the_class_and_the_key(tmp_path, extra, said, zipped):
    path = tmp_path / "weights.pth"
    torch.save(trained() | extra, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError) as caught:
        read_weights(path)
    line = str(caught.value)
    assert said in line and line.startswith(f"weights {path}: not a complete file of plain tensors (")
    assert line.endswith("; save only model.state_dict()") and line.isprintable() and len(line) < 400


def test_a_pickled_model_and_a_plain_pickle_are_named_too(tmp_path):
    with pytest.raises(UserError, match=r"\(the file holds torch\.nn\.modules\.linear\.Linear\)"):
        read_weights(saved(nn.Linear(2, 2), tmp_path))
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"a": Harm()}))
    with pytest.raises(UserError, match=r"the key a holds _pytest\.outcomes\._Fail"):
        read_weights(tmp_path / "plain.pth")


def test_a_list_that_holds_itself_many_times_over_is_looked_through_once(tmp_path):
    nested = [Harm()]
    for _ in range(60):  # 2⁶⁰ ways to the innermost
        nested = [nested, nested]
    nested.append(nested)
    (tmp_path / "nested.pth").write_bytes(pickle.dumps({"a": nested}))
    with pytest.raises(UserError, match=r"\(the key a holds _pytest\.outcomes\._Fail\)"):
        read_weights(tmp_path / "nested.pth")


def test_an_optimiser_alone_is_no_reason(tmp_path):
    assert "model.weight" in read_weights(saved(trained(), tmp_path))


@pytest.mark.parametrize("text", [b"", b"this is no picture\n", b"\x80\x02}q\x00.", b"PK\x03\x04" + bytes(90)])
def test_other_bytes_are_one_printable_line(tmp_path, text):
    (tmp_path / "w.pth").write_bytes(text)
    with pytest.raises(UserError) as caught:
        read_weights(tmp_path / "w.pth")
    assert str(caught.value).isprintable() and str(caught.value).startswith(f"weights {tmp_path / 'w.pth'}: ")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.eye(3).to_sparse(), "a.weight is of another kind (float32 sparse_coo)"),
        (torch.zeros(3, dtype=torch.complex64), "a.weight is of another kind (complex64 strided)"),
    ],
)
def test_tensors_of_another_kind_are_named(tmp_path, value, said):
    torch.save({"a.weight": value}, tmp_path / "weights.pth")
    with pytest.raises(UserError) as caught:
        read_weights(tmp_path / "weights.pth")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_an_old_file_that_lacks_a_storage_is_one_line(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(3), "b": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    keys = pickle.loads(content[-200:][content[-200:].rindex(b"\x80\x02]") :].split(b".")[0] + b".")
    path.write_bytes(content.replace(keys[0].encode(), b"1" * len(keys[0]), 1))
    with pytest.raises(UserError, match="not a complete file of plain tensors") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)
