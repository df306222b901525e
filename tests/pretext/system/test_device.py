"""`--device`: names that torch knows and that compute nothing are one line."""

from __future__ import annotations

import pytest
import torch

from pretext.system.device import device_of
from pretext.system.errors import UserError


@pytest.mark.parametrize("name", ["meta", "mps", "xla", "cuda:99", "gpu", "", "cpu:x"])
def test_a_device_that_is_not_there_or_does_not_compute_is_one_short_line(name):
    if name == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has such a device")
    with pytest.raises(UserError, match=f"^--device {name}: .*; give cpu or auto$") as caught:
        device_of(name)
    assert len(str(caught.value)) < 300


def test_the_processor_computes():
    assert device_of("cpu") == torch.device("cpu")
    assert device_of("auto").type in ("cpu", "cuda")
