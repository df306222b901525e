"""Choose the torch device."""

from __future__ import annotations

import os

import torch

from pretext.system.errors import UserError


def device_of(name: str) -> torch.device:
    """Return the device that `--device` names. `auto` takes a GPU if there is one.

    Raises:
        UserError: If the name is wrong, or this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:  # torchrun: one GPU per process
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).tolist()  # not every device that torch names computes anything
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]  # the rest lists torch's own parts
        raise UserError(f"--device {name}: {reason}; give cpu or auto") from None
    return device
