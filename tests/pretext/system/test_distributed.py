"""Processes that torchrun has not started: its variables set by hand."""

from __future__ import annotations

import pytest
import torch

from pretext.system.distributed import join_processes, one_voice
from pretext.system.errors import UserError


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is set, and RANK and MASTER_ADDR and MASTER_PORT not; start .* by torchrun"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "WORLD_SIZE is set, and MASTER_ADDR and MASTER_PORT not"),
        ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE is 'two'; torchrun sets a number"),
        ({"WORLD_SIZE": "2", "RANK": "x", "MASTER_ADDR": "h"}, "RANK is 'x'; torchrun sets a number"),
    ],
)
def test_variables_that_torchrun_did_not_set_are_one_line(monkeypatch, variables, says):
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=says), one_voice():
        join_processes(torch.device("cpu"))
