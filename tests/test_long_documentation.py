"""What takes long of the documentation: figures, notebook, the first ten minutes, and the site."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_the_figures_of_the_context_encoder_can_be_drawn(tmp_path, monkeypatch, capsys):
    script = ROOT / "docs" / "figures" / "context_encoder.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--images", "192", "--out", str(tmp_path)])
    runpy.run_path(str(script), run_name="__main__")
    assert {file.name for file in tmp_path.glob("*.png")} == {"adversary.png", "fills.png", "masks.png"}
    for drawn in tmp_path.glob("*.png"):
        with Image.open(drawn) as new, Image.open(script.parent / drawn.name) as kept:
            assert new.size == kept.size
    printed = capsys.readouterr().out
    assert len(re.findall(r"^L2.*( +\d+\.\d\d){3}$", printed, re.MULTILINE)) == 3


def test_the_notebook_runs(tmp_path, monkeypatch):
    import matplotlib as mpl

    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    names = {}
    for cell in json.loads((ROOT / "examples" / "first_look.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "first_look.ipynb", "exec"), names)
    scores = names["table"]
    assert scores.shape == (6, 2)
    assert (scores > 20).all().all()  # ten classes


def test_the_commands_of_the_first_page_run_in_their_order(tmp_path, monkeypatch):
    """As they stand, but with fewer pictures; the comparison before them has tests of its own."""
    text = (ROOT / "docs" / "index.md").read_text().partition("## 3")[2]
    blocks = re.findall(r"^```sh\n(.*?)^```$", re.sub(r"\\\n\s+", "", text), re.DOTALL | re.MULTILINE)
    commands = [line for block in blocks for line in block.splitlines() if line.startswith("python ")]
    assert len(commands) == 8
    monkeypatch.chdir(tmp_path)
    for command in commands:
        fewer = re.sub(r"--images \d+", "--images 320", command)
        _, _, module, *words = shlex.split(fewer.replace("scenes?train=2000", "scenes?train=300&val=60&test=310"))
        assert importlib.import_module(f"{module}.__main__").main(words) == 0, command


class Requested(HTMLParser):
    """Addresses that a browser asks for when it opens a page, without a click."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in ("img", "script", "iframe", "source"):
            self.found += [given[name] for name in ("src", "srcset") if given.get(name)]
        if tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload", "preconnect", "dns-prefetch"):
            self.found.append(given["href"])


@pytest.mark.skipif(importlib.util.find_spec("mkdocstrings") is None, reason="needs pip install -e '.[docs]'")
def test_the_site_builds_without_a_warning_and_asks_no_other_host(tmp_path):
    for name in ("docs", "pretext", "downstream", "retrieval"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("mkdocs.yml", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=tmp_path,
        env=os.environ
        | {"NO_MKDOCS_2_WARNING": "1", "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = [*(tmp_path / "site").rglob("*.html")]
    assert len(pages) >= len([*(ROOT / "docs").rglob("*.md")])
    for page in pages:
        requested = Requested()
        requested.feed(page.read_text())
        assert not [address for address in requested.found if re.match(r"(\w+:)?//", address)], page
        assert 'data-md-component="source"' not in page.read_text(), "its script asks the repository's host"
    reference = (tmp_path / "site" / "api.html").read_text()
    assert 'id="pretext.Encoder"' in reference
    assert 'id="retrieval.Searchable"' in reference
    assert not [*(tmp_path / "site").rglob("*.py")]
