"""Results folders for the tests of the report, and a parser for its page."""

from __future__ import annotations

import html.parser
import json

import numpy as np
from comparison_samples import HIGH, LOW, SPREAD, row

from benchmarks.records.results import write_cell, write_json
from benchmarks.report import write_report

SPEC = "scenes?size=32&train=40&val=16&test=16"
VOID = {"meta", "link", "img", "br", "input", "wbr", "path", "use", "rect", "clippath"}


class Page(html.parser.HTMLParser):
    """Parses a page: text, ids, images, addresses, wrongly closed tags."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.images, self.addresses, self.words, self.wrong = [], [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.images += [attributes] if tag == "img" or attributes.get("role") == "img" else []
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href", "action", "data")]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)


def three_rows(out, **fields):
    """Write random weights, a better row, and one that is not better in linear and worse in knn; two stages each."""
    for pretext, linear, knn in (
        ("random", LOW, LOW),
        ("supervised", HIGH, HIGH),
        ("rotation", SPREAD, [9.0, 11.0, 9.5, 10.0]),
    ):
        for probe, items in (("linear", linear), ("knn", knn)):
            stages = [
                row(pretext, items, probe=probe, stage="conv3", **fields),
                row(pretext, [v / 2 for v in items], probe=probe, stage="conv1", headline=False, **fields),
            ]
            write_cell(out, stages[0].cell, stages)


def written(out):
    """Write a folder's report; return the page's text, the parsed page, and the Markdown."""
    path = write_report(out)
    assert path == out / "report.html"
    text = path.read_text(encoding="utf-8")
    return text, Page(text), (out / "report.md").read_text(encoding="utf-8")


def trained_folder(out):
    """Write a results folder with a trained and an untrained encoder, sheets, logs and costs; write its report."""
    import torch

    from downstream.sheets import segmentation_sheet
    from pretext.datasets import open_dataset
    from pretext.encoders import build_encoder, save_encoder
    from pretext.training.config import TrainConfig
    from pretext.training.loop import train

    spec, cells = "alexnet?width=0.1&stem_stride=1", []
    for pretext in ("random", "context_encoder"):
        maker = f"{pretext}.s0.0"
        folder = out / "pretrain" / maker
        if pretext == "random":
            save_encoder(build_encoder(spec, input_size=32, seed=0), folder / "encoder.safetensors", {"task": "random"})
        else:
            config = TrainConfig(steps=4, batch_size=8, log_every=2)
            train(pretext, spec, open_dataset(SPEC), config, folder, image_size=32)
        cells.append({"name": maker, "pretext": pretext, "probe": "", "seed": 0, "made_by": None})
        about = {"pretrain": maker, "probe_config": {"k": 3, "database": 20, "queries": 8}}
        for probe in ("linear", "retrieval", "segmentation"):
            measured = row(pretext, LOW, probe=probe, stage="conv2", data=SPEC, config_json=json.dumps(about))
            write_cell(out, measured.cell, [measured])
        sheet = out / "artifacts" / measured.cell / "segmentation.png"
        sheet.parent.mkdir(parents=True)
        grey = torch.full((3, 8, 8), 90, dtype=torch.uint8)
        mask = torch.zeros(8, 8, dtype=torch.uint8)
        segmentation_sheet(sheet, [(grey, mask, mask)] * 12, ("background",))
    plan = {"data": SPEC, "image_size": 32, "synthetic": True, "bad_images": "skip", "cells": cells}
    write_json(out / "plan.json", plan)
    write_report(out)
    return out


def many_rows_folder(out):
    """Write a results folder of 24 rows and six probes, two of them with several stages; write its report."""
    rng = np.random.default_rng(0)
    names = ["random", "supervised", "context_encoder:adversarial", *(f"a_task_{i}" for i in range(21))]
    cells = []
    for place, name in enumerate(names):
        for seed in range(3):
            maker = f"{name}.s{seed}.0"
            cells.append({"name": maker, "pretext": name, "probe": "", "seed": seed})
            about = {"images_seen": 10, "wall_s": 5 + place, "peak_mem_bytes": 7, "flops_per_image": 3}
            write_json(out / "pretrain" / maker / "run.json", about)
            for probe in ("linear", "knn", "svm", "fine_tune", "segmentation", "retrieval"):
                gain = 0 if name == "random" else 8.0 * (place % 4)
                items = rng.normal(40 + gain, 10, 100)
                rows = [row(name, items, probe=probe, seed=seed, stage="conv3", data=SPEC)]
                if probe in ("linear", "knn"):
                    rows.append(row(name, items / 2, probe=probe, seed=seed, stage="conv1", headline=False, data=SPEC))
                write_cell(out, rows[0].cell, rows)
    write_json(out / "plan.json", {"data": SPEC, "cells": cells})
    write_report(out)
    return out
