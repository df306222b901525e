"""What is refused when an index is opened or searched: another encoder, damage, another format."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from index_samples import SIZE, SPEC, make_encoder

from pretext.system.errors import UserError
from retrieval.__main__ import main
from retrieval.indexing.index import PatchIndex


def test_another_encoder_is_refused(saved: Path, features: np.ndarray) -> None:
    with pytest.raises(UserError, match="made with the encoder"):
        PatchIndex.open(saved).search(features[:1], 1, encoder=make_encoder(seed=1))


def test_an_encoder_that_was_trained_since_is_refused(saved: Path, features: np.ndarray) -> None:
    index, encoder = PatchIndex.open(saved), make_encoder()
    index.search(features[:1], 1, encoder=encoder)
    optimiser = torch.optim.SGD(encoder.parameters(), lr=0.1)
    encoder(torch.zeros(1, 3, SIZE, SIZE))[-1].sum().backward()
    optimiser.step()
    with pytest.raises(UserError, match="its weights changed"):
        index.search(features[:1], 1, encoder=encoder)


def test_weights_made_in_inference_mode_are_compared_too(saved: Path, features: np.ndarray) -> None:
    with torch.inference_mode():  # such tensors have no version counter
        index, encoder = PatchIndex.open(saved), make_encoder()
        index.search(features[:1], 1, encoder=encoder)
        next(encoder.parameters()).add_(1)
        with pytest.raises(UserError, match="its weights changed"):
            index.search(features[:1], 1, encoder=encoder)


def test_another_normalisation_is_refused(saved: Path, features: np.ndarray) -> None:
    encoder = make_encoder()
    encoder.mean = (0.5, 0.5, 0.5)
    with pytest.raises(UserError, match="made with the encoder"):
        PatchIndex.open(saved).search(features[:1], 1, encoder=encoder)


@pytest.mark.parametrize("name", ["index.faiss", "patches.npy", "pictures.npy"])
@pytest.mark.parametrize("harm", ["flip", "cut", "short", "empty", "longer", "remove"])
def test_a_harmed_index_is_refused_before_it_is_read(
    saved: Path, name: str, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: str) -> None:
        raise AssertionError(f"read {path}")

    content = bytearray((saved / name).read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 1
    kept = {"cut": content[: len(content) // 2], "short": content[:-1], "empty": b"", "longer": content + b"0"}
    (saved / name).write_bytes(kept.get(harm, content))
    if harm == "remove":
        (saved / name).unlink()
    monkeypatch.setattr("faiss.read_index", read)
    monkeypatch.setattr("retrieval.indexing.index.np.load", read)
    with pytest.raises(UserError, match=f"index: {re.escape(name)} is"):
        PatchIndex.open(saved)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (None, "is not an index: it has no manifest"),
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[]", "is not the manifest of an index"),
        ('{"patches": 1}', "is not the manifest of an index"),
        ('{"format": 1, "sha256": {}}', "format 1, but this version reads 2"),
        ('{"format": 2, "sha256": {}}', "cannot be read"),
        ('{"format": 2, "sha256": []}', "is not the manifest of an index"),
    ],
)
def test_a_folder_that_is_no_index_is_named(saved: Path, text: str | None, word: str) -> None:
    manifest = saved / "manifest.json"
    manifest.unlink() if text is None else manifest.write_text(text)
    with pytest.raises(UserError, match=word) as caught:
        PatchIndex.open(saved)
    assert str(saved) in str(caught.value)


def test_an_index_of_another_format_is_refused(saved: Path) -> None:
    manifest = saved / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 99}))
    with pytest.raises(UserError, match="format 99"):
        PatchIndex.open(saved)


def test_a_manifest_with_anything_in_a_place_of_another_is_refused(saved: Path) -> None:
    manifest = saved / "manifest.json"
    content = json.loads(manifest.read_text())
    informative = {"patches", "pictures", "dimensions"}
    for name in content.keys() - informative:
        for wrong in (None, 7.5, [7.5]):
            manifest.write_text(json.dumps(content | {name: wrong}))
            with pytest.raises(UserError, match=r"manifest\.json"):
                PatchIndex.open(saved)
        manifest.write_text(json.dumps({key: value for key, value in content.items() if key != name}))
        with pytest.raises(UserError, match=r"manifest\.json"):
            PatchIndex.open(saved)


def test_a_folder_of_anything_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"no index")
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=re.escape(str(folder))):
            PatchIndex.open(folder)


def test_a_file_that_this_faiss_cannot_read_is_named(saved: Path) -> None:

    harmed = b"XXXX" + (saved / "index.faiss").read_bytes()[4:]
    (saved / "index.faiss").write_bytes(harmed)
    content = json.loads((saved / "manifest.json").read_text())
    content["sha256"]["index.faiss"] = hashlib.sha256(harmed).hexdigest()
    (saved / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"index\.faiss: FAISS [\d.]+ cannot read it") as caught:
        PatchIndex.open(saved)
    assert "\n" not in str(caught.value)


def test_stage_and_pooling_of_an_index_can_be_chosen_on_val(
    encoder_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["index", "--encoder", str(encoder_file), "--data", SPEC, "--mode", "objects", "--choose"]
    assert main([*words, "--out", str(tmp_path / "index")]) == 0
    said = re.search(r"chosen on val: --stage (\w+) --pool (\d)", capsys.readouterr().out)
    assert said is not None
    manifest = PatchIndex.open(tmp_path / "index").manifest
    assert (manifest.stage, str(manifest.regions.pool)) == said.groups()
    with pytest.raises(UserError, match="--choose chooses --stage and --pool; give neither"):
        main([*words, "--pool", "2", "--out", str(tmp_path / "other")])
