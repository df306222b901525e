"""Probes that train the encoder, in bfloat16: which layers compute in it, and that they learn the same."""

from __future__ import annotations

import json

import pytest
import torch
from probe_samples import small_encoder, small_scenes
from torch import nn

from downstream.probes.detection import Detection
from downstream.probes.fine_tune import FineTune
from downstream.probes.low_shot import LowShot
from downstream.probes.segmentation import Segmentation

PROBES = {
    "detection": (Detection, {"train_images": 8, "test_images": 4, "steps": 4, "batch_size": 4, "cells": 2}),
    "fine_tune": (FineTune, {"train_images": 24, "steps": 8, "batch_size": 8}),
    "segmentation": (Segmentation, {"train_images": 8, "test_images": 4, "steps": 8, "batch_size": 4}),
}


def judged(name, folder, **settings):
    """Return the loss of every step, and the number formats of the encoder's layers in training and at test."""
    formats = {True: set(), False: set()}
    encoder = small_encoder()
    for layer in encoder.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda layer, _, output: formats[layer.training].add(output.dtype))
    kind, few = PROBES[name]
    list(kind(**few, **settings).evaluate(encoder, small_scenes(train=24, val=2, test=8), folder))
    return json.loads((folder / "curve.json").read_text())["loss"], formats


@pytest.mark.parametrize("name", PROBES)
def test_the_encoder_is_trained_in_bfloat16_and_tested_in_float32(name, tmp_path):
    exact, full = judged(name, tmp_path / "float32", precision="float32")
    assert full == {True: {torch.float32}, False: {torch.float32}}
    rounded, half = judged(name, tmp_path / "bfloat16", precision="bfloat16")
    assert half == {True: {torch.bfloat16}, False: {torch.float32}}
    assert rounded != exact
    assert rounded[0] == pytest.approx(exact[0], rel=0.02)  # later steps drift apart
    usual, _ = judged(name, tmp_path / "usual")
    assert usual == exact


def test_few_labels_pass_the_precision_on_to_fine_tuning():
    assert LowShot(precision="bfloat16", steps=7).fine_tuning(0) == FineTune(
        precision="bfloat16", steps=7, train_images=0, batch_size=LowShot.batch_size
    )
