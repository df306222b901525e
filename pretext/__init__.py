"""Makes encoders: data sets, encoders, pretext tasks, and the one training loop.

The public names are imported when they are first asked for, so that `import pretext` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pretext.datasets import open_dataset
    from pretext.encoders import build_encoder, load_encoder, save_encoder
    from pretext.tasks import build_task
    from pretext.training.config import TrainConfig

__all__ = [
    "TrainConfig",
    "build_encoder",
    "build_task",
    "load_encoder",
    "open_dataset",
    "save_encoder",
]

_HOMES = {
    "TrainConfig": "train_config",
    "build_encoder": "encoders",
    "build_task": "tasks",
    "load_encoder": "encoders",
    "open_dataset": "datasets",
    "save_encoder": "encoders",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
