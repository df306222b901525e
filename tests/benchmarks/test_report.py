"""Tests the page and the Markdown: verdict, caveats, failures and run details."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from comparison_samples import HIGH, LOW, row
from report_samples import three_rows, written

from benchmarks.records.environment import read_environments, write_environment
from benchmarks.records.results import write_cell, write_failure, write_json
from benchmarks.report import write_report
from benchmarks.report.content import read_run
from pretext.system.errors import UserError


def test_a_folder_without_results_is_a_one_line_error(tmp_path):
    with pytest.raises(UserError, match=r"no results to report; python benchmarks/run_all\.py --out") as found:
        write_report(tmp_path)
    assert "\n" not in str(found.value)
    assert not list(tmp_path.iterdir())


def test_the_verdict_names_rows_better_than_random_weights_by_probe(tmp_path):
    three_rows(tmp_path)
    text, page, markdown = written(tmp_path)
    for words in ("".join(page.words), markdown):
        assert "interval of the difference excludes zero): Supervised in Linear and k-NN." in words
        assert "Worse than random weights: Rotation in k-NN." in words
        assert "Not distinguishable from random weights: Rotation in Linear." in words
        assert "4 comparisons" in words
    for best in ("30.2", "30.0"):  # of both columns, training with labels aside
        assert markdown.count(f"**{best}") == 1 and text.count(f"<strong>{best}</strong>") == 1
    assert "\n| No learning | 10.0 |" in markdown and "No learning: the best answer without any" in markdown
    assert "**60.0" not in markdown and "<strong>60.0" not in text


def test_the_first_line_says_that_data_is_synthetic(tmp_path):
    three_rows(tmp_path)
    _, page, markdown = written(tmp_path)
    lines = [line for line in markdown.splitlines() if line]
    assert lines[0].startswith("# ")
    assert lines[1].startswith("Synthetic data")
    assert "".join(page.words[page.words.index("Pretext tasks compared") :]).startswith(
        "Pretext tasks comparedSynthetic"
    )


def test_photographs_are_not_called_synthetic(tmp_path):
    three_rows(tmp_path, data="voc:VOC2007")
    text, _, markdown = written(tmp_path)
    assert "synthetic" not in (re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL) + markdown).lower()


def test_the_page_is_valid_and_loads_nothing(tmp_path):
    three_rows(tmp_path)
    text, page, _ = written(tmp_path)
    assert not page.wrong
    assert not page.open
    assert len(page.ids) == len(set(page.ids))
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    files = [address for address in page.addresses if not address.startswith(("#", "data:"))]
    assert "results.csv" in files and "figures/forest.svg" in files
    assert not any(":" in address or address.startswith("/") for address in files)  # of the same folder
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(page.ids)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


@pytest.mark.slow
def test_the_same_folder_gives_the_same_bytes(tmp_path):
    three_rows(tmp_path)
    assert written(tmp_path)[0] == written(tmp_path)[0]


def test_failures_and_run_details_are_shown_and_escaped(tmp_path):
    three_rows(tmp_path)
    write_failure(tmp_path, "rotation.svm.s0.0", ValueError("a <b> & c"))
    write_json(tmp_path / "plan.json", {"command": "run --data 'x<y'", "notes": ["two | <bad>"], "cells": []})
    text, page, markdown = written(tmp_path)
    words = "".join(page.words)
    for shown in ("rotation.svm.s0.0", "ValueError: a <b> & c", "run --data 'x<y'", "two | <bad>"):
        assert shown in words
    for shown in ("rotation.svm.s0.0", r"ValueError: a \<b\> & c", "run --data 'x<y'", r"two \| \<bad\>"):
        assert shown in markdown
    assert "<b>" not in text
    assert not page.wrong


def test_failures_of_cells_outside_the_plan_are_not_shown(tmp_path):
    three_rows(tmp_path)
    write_failure(tmp_path, "rotation.svm.s0.0", "of now")
    write_failure(tmp_path, "rotation.svm.s0.1", "of other settings")
    write_json(
        tmp_path / "plan.json", {"cells": [{"name": "rotation.svm.s0.0", "pretext": "rotation", "probe": "svm"}]}
    )
    text = written(tmp_path)[0]
    assert "of now" in text
    assert "1 of 1 planned cells has no result; failed: 1." in text
    assert "of other settings" not in text


def test_failures_alone_make_a_report(tmp_path):
    write_failure(tmp_path, "rotation.s0.0", "out of memory")
    text, _, markdown = written(tmp_path)
    assert "out of memory" in text
    assert "no cell has a result" in markdown.lower()


def test_without_random_weights_no_gains_are_reported(tmp_path):
    write_cell(tmp_path, "a", [row("supervised", HIGH)])
    assert "Gains need the row random and another row" in written(tmp_path)[2]


def test_missing_data_leaves_the_other_sections(tmp_path):
    from pretext.encoders import build_encoder, save_encoder

    three_rows(tmp_path, config_json=json.dumps({"pretrain": "random.s0.0"}))
    encoder = build_encoder("alexnet?width=0.1&stem_stride=1", input_size=32, seed=0)
    save_encoder(encoder, tmp_path / "pretrain" / "random.s0.0" / "encoder.safetensors", {"task": "random"})
    gone = {"data": "voc:nowhere", "image_size": 32, "cells": []}
    write_json(tmp_path / "plan.json", gone)
    text, page, _ = written(tmp_path)
    assert "Inpainting left out:" in text
    assert "nowhere" in text
    assert sum("filters of the first layer" in image.get("alt", "") for image in page.images) == 3


def test_a_truncated_log_costs_its_lines_and_not_the_page(tmp_path, capsys):
    three_rows(tmp_path, config_json=json.dumps({"pretrain": "random.s0.0"}))
    folder = tmp_path / "pretrain" / "random.s0.0"
    folder.mkdir(parents=True)
    (folder / "encoder.safetensors").touch()
    (folder / "log.jsonl").write_text('{"images": 1, "loss": {"ta')
    text, page, _ = written(tmp_path)
    assert "Figures left out" not in text
    assert "log.jsonl, line 1: " in capsys.readouterr().err
    assert "First-layer filters left out: " in text
    assert "interval of the difference excludes zero): Supervised in Linear and k-NN." in "".join(page.words)


def test_the_later_of_two_cells_of_one_seed_counts_whatever_its_name(tmp_path):
    for name, day, value in (("z", 1, 10.0), ("a", 2, 20.0)):
        measured = row("random", value=value, cell=name, started_at=f"2026-01-0{day}T00:00:00+00:00")
        write_cell(tmp_path, name, [measured])
    assert [m.value for m in read_run(tmp_path).measurements] == [20.0]


@pytest.mark.slow
def test_results_of_uncommitted_code_are_counted(tmp_path):
    three_rows(tmp_path)
    assert "uncommitted changes" not in written(tmp_path)[2]
    write_cell(tmp_path, "rotation.knn.s0.00000000", [row("rotation", LOW, probe="knn", git_dirty=True)])
    _, page, markdown = written(tmp_path)
    for words in ("".join(page.words), markdown):
        assert "1 of 6 results were computed with uncommitted changes (Rotation)." in words


@pytest.mark.slow
def test_the_environment_is_shown(tmp_path):
    three_rows(tmp_path)
    assert "Packages" not in written(tmp_path)[2]
    write_environment(tmp_path, workers=2, threads=1)
    write_environment(tmp_path, workers=2, threads=1)
    (entry,) = read_environments(tmp_path)
    assert entry["packages"]["numpy"] == np.__version__
    assert {"python", "system", "processor", "cores", "device", "driver", "cuda", "since"} < set(entry)
    assert entry["instructions"] == torch.backends.cpu.get_cpu_capability()
    write_environment(tmp_path, workers=4, threads=1)
    assert [each["workers"] for each in read_environments(tmp_path)] == [2, 4]
    _, page, markdown = written(tmp_path)
    for words in ("".join(page.words), markdown):
        assert "2, 1 thread each; 4, 1 thread each" in words
        assert f"numpy {np.__version__}" in words
        assert entry["instructions"] in words
    (tmp_path / "environment.json").write_text(
        json.dumps([{**entry, "instructions": ""}]).replace('"instructions"', '"x"')
    )
    assert "Instructions" not in written(tmp_path)[2]  # results from before the instructions were recorded
