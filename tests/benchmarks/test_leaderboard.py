"""The leaderboard: every row of every folder with its record, on a page that loads nothing; filters in a browser."""

from __future__ import annotations

import html
import json
import re
import shutil

import pytest
from comparison_samples import SPEC, changed, run_smoke
from report_samples import Page

from benchmarks import run_all
from benchmarks.records.results import write_json
from benchmarks.summaries.verdict import summarise
from pretext.system.errors import UserError


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    return tmp_path_factory.mktemp("two")


@pytest.fixture
def two(smoke, tmp_path, once):
    """Two folders on different data, two probes each."""
    if not any(once.iterdir()):
        run_smoke(once / "a", "--seeds", "2")
        run_smoke(once / "b", "--seeds", "2", "--data", SPEC + "&seed=1")
    shutil.copytree(once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "a", tmp_path / "b"


def written(tmp_path, *folders):
    assert run_all.main(["leaderboard", *map(str, folders), "--out", str(tmp_path / "site")]) == 0
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["index.html"]
    return (tmp_path / "site" / "index.html").read_text(encoding="utf-8")


def lines(text):
    """Return the cells of the table, line by line."""
    body = re.search(r'id="rows">.*?<tbody>(.*?)</tbody>', text, re.DOTALL)[1]
    rows = re.findall(r"<tr.*?</tr>", body, re.DOTALL)
    rows = [re.sub(r"<a[^>]*>[^<]*</a><small>(.*?)</small>", r"\1", row) for row in rows]  # the names of commands
    return [[html.unescape(re.sub(r"<.*?>", "", cell)) for cell in re.split(r"</t[dh]>", row)[:-1]] for row in rows]


def test_every_row_of_every_folder_has_a_line_and_a_record(two, once, tmp_path):
    text = written(tmp_path, *two)
    page = Page(text)
    assert page.wrong == [] and page.open == []
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert not re.search(r"https?://|@import|url\(", text)
    found = lines(text)
    assert len(found) == 2 * 3 * 2
    assert {(line[0], line[1].partition("top-1")[0], line[4].split()[0]) for line in found} == {
        (row, probe, f"{spec}")
        for row in ("random", "supervised", "rotation")
        for probe in ("Linear", "Segmentation")
        for spec in (SPEC, SPEC + "&seed=1")
    }
    assert len({line[8] for line in found}) == 4  # two probes on two data sets
    assert ">Rotation</a><small>rotation</small>" in text
    records = {address[1:] for address in page.addresses if address.startswith("#record")}
    assert len(records) == 12 and records <= set(page.ids)
    words = "".join(page.words)
    for folder in two:
        assert f"reproduce {next((folder / 'results').glob('rotation.linear.s0.*')).stem} --out {folder}" in words
        for cell in (folder / "results").iterdir():
            assert cell.stem in words
    assert f"python benchmarks/run_all.py --profile smoke --out {once / 'a'} --workers 1 --seeds 2" in words


def test_intervals_and_differences_are_those_of_the_folder(two, tmp_path):
    from benchmarks.records.results import read_measurements

    for path in (two[0] / "results").glob("rotation.linear.*"):
        content = json.loads(path.read_text())
        content["measurements"][0] |= {"items": [90.0, 91.0, 92.0, 95.0], "value": 92.0}
        write_json(path, content)
    (expected,) = (
        s for s in summarise(read_measurements(two[0])) if (s.pretext, s.probe) == ("rotation", "linear") and s.headline
    )
    (line,) = (each for each in lines(written(tmp_path, two[0])) if each[:2] == ["rotation", "Lineartop-1 % ↑"])
    assert line[2] == f"92.0[{expected.low:.1f}, {expected.high:.1f}]"
    ends = f"[{expected.difference_low:+.1f}, {expected.difference_high:+.1f}]"
    assert line[3] == f"{expected.difference:+.1f} ▲{ends}"


def test_what_speaks_against_a_record_is_said(two, tmp_path):
    folder = two[0]
    changed(folder, "random.linear.s0", git_dirty=True, git_sha="abc")
    changed(folder, "supervised.linear.s1", value=99.0)
    changed(folder, "rotation.linear.s0", git_sha="")
    settings = json.loads((next((folder / "results").glob("rotation.segmentation.s0.*"))).read_text())
    config = json.loads(settings["measurements"][0]["config_json"]) | {"code": 1}
    changed(folder, "rotation.segmentation.s0", config_json=json.dumps(config))
    shutil.copytree(two[1], tmp_path / "d")
    changed(tmp_path / "d", "random.segmentation.s0", value=3.0, items=[3.0] * 4)
    remarks = {}
    for line in lines(written(tmp_path, *two, tmp_path / "d")):
        remarks.setdefault((line[0], line[1].partition("top-1")[0], SPEC + "&seed=1" in line[4]), []).append(line[9])
    assert "uncommitted code" in remarks["random", "Linear", False][0]
    assert "top1 is not the mean of its items" in remarks["supervised", "Linear", False][0]
    assert "unknown revision" in remarks["rotation", "Linear", False][0]
    for part in ("settings do not match the name", "code version 1, now 6"):
        assert part in remarks["rotation", "Segmentation", False][0]
    assert len(remarks["random", "Segmentation", True]) == 2  # the same cells with other values: both are shown
    assert f"other values in {tmp_path / 'd'}" in "".join(remarks["random", "Segmentation", True])
    assert f"other values in {two[1]}" in "".join(remarks["random", "Segmentation", True])
    assert len(remarks["random", "Linear", True]) == 1  # with the same values they are one


def test_names_cannot_break_the_page(two, tmp_path):
    name = '<script>"alert(1)'
    for path in (two[0] / "results").glob("rotation.linear.*"):
        content = json.loads(path.read_text())
        for each in content["measurements"]:
            each |= {"pretext": name, "data": name, "encoder": name, "device": name}
        write_json(path, content)
    text = written(tmp_path, two[0])
    assert Page(text).wrong == []
    assert text.count("<script>") == 1
    assert name in [line[0] for line in lines(text)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--out", "site"], "nowhere is not a folder"),
        (["a", "--out", "file/site"], "--out file/site: Not a directory; give another folder"),
        (["a"], "--out"),
    ],
)
def test_bad_requests_are_one_line(two, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=message) as caught:
        run_all.main(["leaderboard", *arguments])
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(360, False), (1280, True)])
def test_a_browser_filters_sorts_and_opens_records(browser, two, tmp_path, width, dark):
    more = [tmp_path / f"more{seed}" for seed in (2, 3)]  # the report filters tables of more than 20 rows itself
    for seed, folder in enumerate(more, start=2):
        run_smoke(folder, "--seeds", "2", "--data", f"{SPEC}&seed={seed}")
    written(tmp_path, *two, *more)
    browser.show(tmp_path / "site" / "index.html", width=width, dark=dark, mobile=width == 360)
    assert browser.run("document.documentElement.scrollWidth") == width
    shown = "[...document.querySelectorAll('#rows tbody tr')].filter(r => !r.hidden)"
    assert browser.run(f"{shown}.length") == 24
    assert browser.run("document.querySelectorAll('input[type=search]').length") == 1
    browser.run("const s = document.querySelector('select[name=probe]'); s.value = 'linear'; "
                "s.dispatchEvent(new Event('input'))")  # fmt: skip
    assert browser.run(f"{shown}.every(r => r.cells[1].textContent.startsWith('Linear'))")
    assert browser.run("document.querySelector('#count').textContent") == "12 of 24 rows"
    assert browser.run("[...document.querySelectorAll('.record')].filter(r => !r.hidden).length") == 12
    browser.run("document.querySelector('.choices input').value = 'ROT'; "
                "document.querySelector('.choices input').dispatchEvent(new Event('input'))")  # fmt: skip
    assert browser.run(f"{shown}.length") == 4
    browser.run("document.querySelector('.choices button').click()")
    browser.run("new Promise(done => setTimeout(done, 50))")
    assert browser.run(f"{shown}.length") == 24
    browser.run("document.querySelectorAll('#rows thead button')[2].click()")
    means = browser.run("[...document.querySelectorAll('#rows tbody tr')].map(r => Number(r.cells[2].dataset.value))")
    assert means == sorted(means, reverse=True)
    browser.run("document.querySelector('#rows a').click()")
    browser.run("new Promise(done => setTimeout(done, 50))")
    assert browser.run("document.querySelector(location.hash).open")
    assert browser.requests == [] and browser.complaints == []
