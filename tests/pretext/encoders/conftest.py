"""Two ResNets with different weights, and a checkpoint that lacks a layer of the first."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def resnet():
    from weight_file_samples import alive, resnet10

    return alive(resnet10, 1)


@pytest.fixture(scope="session")
def other():
    from weight_file_samples import alive, resnet10

    return alive(resnet10, 2)


@pytest.fixture
def partial(resnet, tmp_path):
    from weight_file_samples import LAST, saved

    tensors = resnet.state_dict()
    return saved({name: value for name, value in tensors.items() if not name.startswith(LAST)}, tmp_path)
