"""The front page and the documentation: links, pictures, quoted code, and tables that repeat the source."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import tomllib
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
FRONT = ROOT / "README.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
WRITTEN = [page for page in PAGES if page.parent.name != "results" or page.name == "index.md"]
"""Pages that people write; the others of docs/results are written by run_all."""
ROOMS = "pretext|downstream|retrieval|benchmarks|tests|docs|examples"


def relative(path):
    return str(path.relative_to(ROOT))


def without_code(text):
    """Return Markdown without fenced and indented code and code spans, none of which holds links or headings."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "code", re.sub(r"^ {4}.*$", "", text, flags=re.MULTILINE))


def anchors(page):
    """Return the anchors of a page's headings, as GitHub and Python-Markdown both make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = [re.sub(r"[`*]", "", found) for found in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).strip() for heading in headings]
    return {slug.replace(" ", "-") for slug in slugs if slugs.count(slug) == 1 and "  " not in slug}


def links(page):
    """Yield whether it is a picture, the text, the file and the anchor of each relative link of a page."""
    for mark, text, target in re.findall(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", without_code(page.read_text())):
        if not re.match(r"\w+:", target):
            file, _, anchor = unquote(target).partition("#")
            yield bool(mark), text, (page.parent / file).resolve() if file else page, anchor


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_to_files_and_headings_that_exist(page):
    for _, text, file, anchor in links(page):
        assert file.exists(), f"[{text}] leads to {file}"
        if anchor:
            assert anchor in anchors(file), f"[{text}] leads to #{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_pictures_say_in_words_what_they_show(page):
    for picture, text, file, _ in links(page):
        assert not picture or len(text.split()) >= 4, file
    assert "<img" not in page.read_text()


@pytest.mark.parametrize("page", WRITTEN, ids=relative)
def test_files_that_a_page_names_exist(page):
    if page.name in ("CHANGELOG.md", "LOG.md"):
        pytest.skip("a record of the past names files of its time")
    for name in re.findall(rf"`((?:{ROOMS})/[\w./-]*)`", page.read_text()):
        assert (ROOT / name).exists(), name


def test_checks_of_links_see_a_wrong_one(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A page: of `code`\n\n[x](other.md#none) ![](a.png)\n\n    [not](a-link.md)\n")
    assert anchors(page) == {"a-page-of-code"}
    found = [(picture, text, file.name, anchor) for picture, text, file, anchor in links(page)]
    assert found == [(False, "x", "other.md", "none"), (True, "", "a.png", "")]


def test_the_front_page_is_short():
    lines = FRONT.read_text().splitlines()
    assert len(lines) <= 120
    prose = [line for line in lines if not line.startswith("|")]
    assert not [line for line in prose if len(line.encode()) >= 100]
    table = [line for line in lines if line.startswith("|")]
    assert not [line for line in table if re.search(r"\d ±|± \d", line)], "a number would wrap before its interval"


def test_numbers_of_the_front_page_are_those_of_the_report():
    """Each mean with its interval stands in docs/results/laptop.md, as often in each row; so does the last line."""
    report = (ROOT / "docs" / "results" / "laptop.md").read_text()
    first = next(part for part in report.split("\n\n") if part.startswith("| row | Linear (top-1 %"))
    *rows, no_learning = first.splitlines()[2:]
    known = [sorted(re.findall(r"([\d.]+) ±([\d.]+)", line)) for line in rows]
    (plain,) = (line for line in FRONT.read_text().splitlines() if line.startswith("| no learning "))
    assert re.findall(r"[\d.]+", plain) == re.findall(r"[\d.]+", no_learning)
    shown = [re.findall(r"([\d.]+)\u00a0±\u00a0([\d.]+)", line) for line in FRONT.read_text().splitlines()]
    shown = [sorted(row) for row in shown if row]
    assert len(shown) == len(known) == 11
    for row in shown:
        assert any(set(row) <= set(other) for other in known), row


@pytest.mark.parametrize("page", WRITTEN, ids=relative)
def test_quoted_code_is_in_the_file_that_its_title_names(page):
    for name, code in re.findall(r'^```python title="([^"]+)"\n(.*?)^```$', page.read_text(), re.DOTALL | re.MULTILINE):
        assert code in (ROOT / name).read_text(), code


def test_settings_of_probes_are_those_of_the_source():
    file = ROOT / "docs" / "probe_settings.py"
    spec = importlib.util.spec_from_file_location("probe_settings", file)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (ROOT / "docs" / "probes.md").read_text()
    assert page == script.with_settings(page), "run python docs/probe_settings.py"
    for name in re.findall(r"^### (\w+)$", page, re.MULTILINE):
        assert f"| `{name}` |" in page


@pytest.mark.parametrize("package", ["pretext", "downstream", "retrieval"])
def test_the_reference_has_every_public_name(package):
    tree = ast.parse((ROOT / package / "__init__.py").read_text())
    (names,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    page = (ROOT / "docs" / "api.md").read_text()
    assert re.findall(rf"^::: {package}\.(\w+)$", page, re.MULTILINE) == names


def test_every_page_is_on_the_site():
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    named = {ROOT / "docs" / name for name in re.findall(r"[\w/-]+\.md", nav)}
    assert named == {page for page in PAGES if page.is_relative_to(ROOT / "docs")}


def test_the_version_is_one():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"version = {{{version}}}" in (ROOT / "docs" / "cite.md").read_text()
    assert f"## {version}:" in (ROOT / "RELEASE_NOTES.md").read_text()


def test_the_notebook_keeps_its_outputs_and_is_small():
    (file,) = (ROOT / "examples").glob("*.ipynb")
    assert file.stat().st_size < 300_000
    cells = [cell for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell["outputs"])


def test_figures_are_small():
    figures = [*(ROOT / "docs" / "figures").glob("*.png")]
    assert figures
    assert not [file.name for file in figures if file.stat().st_size > 150_000]
