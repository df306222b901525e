"""The model card of an exported encoder: what it is, how it was trained, how to load it, and its limits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

from pretext.encoders.base import Encoder
from pretext.exporting.differences import Difference
from pretext.exporting.prepared import Prepared

TRAINING = {
    "task": "pretext task",
    "task_config": "settings of the task",
    "encoder": "initial network",
    "data": "data set",
    "data_fingerprint": "fingerprint of the data",
    "labels": "labels used in training",
    "images_seen": "images seen",
    "image_size": "image size, px",
    "train_config": "settings of the training",
    "started_from": "started from",
    "weights": "external weights",
    "weights_sha256": "SHA-256 of the external weights",
    "version": "version of pretext-bench",
    "git_sha": "Git revision",
    "git_dirty": "code differed from that revision",
}
"""Entries of an encoder's record in the order of the card, and what they are called there."""


def card_of(encoder: Encoder, prepared: Prepared, difference: Difference, name: str, sha256: str) -> str:
    """Return the card in Markdown.

    Args:
        encoder: The encoder, with its record.
        prepared: The format it was written in.
        difference: Between the reloaded file and the encoder.
        name: The file's name, without a folder.
        sha256: The file's hash.
    """
    return "\n".join(_lines(encoder, prepared, difference, name, sha256)) + "\n"


def _lines(encoder: Encoder, prepared: Prepared, difference: Difference, name: str, sha256: str) -> Iterator[str]:
    millions = sum(value.numel() for value in encoder.parameters()) / 1e6
    side = encoder.input_size
    yield f"# {name}"
    yield ""
    yield f"An image encoder without a classifier, {_code(encoder.spec)}, written by pretext-bench as {prepared.title}."
    yield ""
    yield "| | |"
    yield "| :-- | :-- |"
    yield f"| parameters | {millions:.2f} M |"
    yield f"| input | B×3×{side}×{side}, RGB, values from 0 to 1 |"
    yield f"| normalisation | {normalisation(encoder, prepared)} |"
    yield f"| vector | {encoder.stages[-1].channels} numbers for each image: the mean of the deepest map |"
    yield f"| check | reloaded and compared with the encoder: {difference} |"
    yield f"| checked with | {versions(prepared)} |"
    yield f"| SHA-256 | {_code(sha256)} |"
    yield ""
    yield "## Load it"
    yield ""
    yield "`images` is a batch as above" + (", a NumPy array of float32." if prepared.takes_arrays else ", a tensor.")
    yield ""
    yield "```python"
    yield from prepared.load(name)
    yield from prepared.use
    yield "```"
    yield ""
    yield "## Maps"
    yield ""
    yield f"The encoder has a map of each stage. At {side} px:"
    yield ""
    yield "| stage | channels | pixels per cell |"
    yield "| :-- | --: | --: |"
    yield from (f"| {stage.name} | {stage.channels} | {stage.stride} |" for stage in encoder.stages)
    yield ""
    yield "## Training"
    yield ""
    yield from _training(encoder.record)
    yield ""
    yield "## Limits"
    yield ""
    yield from (f"- {note}" for note in prepared.notes)
    yield "- There is no classifier: train one on the vectors, or fine-tune the network."
    yield f"- The encoder is for images of {side}×{side} px; other sides were not tried."
    yield "- The licences of the training images and of initial weights are not recorded here."


def versions(prepared: Prepared) -> str:
    """Return the libraries that load the file, with their versions."""
    words = [line.split()[1].partition(".")[0] for line in prepared.load("") if line.startswith(("import ", "from "))]
    return ", ".join(f"{name} {version(name)}" for name in dict.fromkeys(words))


def normalisation(encoder: Encoder, prepared: Prepared) -> str:
    """Return one line about mean and deviation, and who applies them."""
    mean, std = (" ".join(f"{value:.6g}" for value in values) for values in (encoder.mean, encoder.std))
    who = "inside the file" if prepared.normalises else "not inside the file: the lines that use it apply it"
    return f"mean {mean}, deviation {std}; {who}"


def _training(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield the record as a table."""
    if not record:
        yield "The encoder has random weights: it was not trained."
        return
    yield "| | |"
    yield "| :-- | :-- |"
    seed = (record.get("train_config") or {}).get("seed") if isinstance(record.get("train_config"), dict) else None
    for key, name in TRAINING.items():
        if record.get(key) not in (None, "", {}):
            yield f"| {name} | {_code(record[key])} |"
        if key == "images_seen" and seed is not None:
            yield f"| seed | {_code(seed)} |"
    yield from (f"| {key} | {_code(value)} |" for key, value in sorted(record.items()) if key not in TRAINING)


def _code(value: Any) -> str:
    """Return a value as code in one cell of a table."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text).replace("|", "\\|")
    return f"`` {shown} ``" if "`" in shown else f"`{shown}`"
