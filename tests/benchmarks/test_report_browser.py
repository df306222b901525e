"""Tests the page in a browser: on a phone and a screen, light and dark, and in print."""

from __future__ import annotations

import re

import pytest
from report_samples import many_rows_folder, trained_folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return trained_folder(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return many_rows_folder(tmp_path_factory.mktemp("many"))


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["trained", "many"])
@pytest.mark.parametrize(("width", "dark"), [(360, False), (1200, False), (1200, True)])
def test_a_browser_shows_the_page_without_errors(browser, request, folder, width, dark):
    browser.show(request.getfixturevalue(folder) / "report.html", width=width, dark=dark, mobile=width == 360)
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.run("document.documentElement.scrollWidth") == width
    assert browser.run("[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt)")
    assert browser.run(
        "[...document.querySelectorAll('svg')].every(s => s.closest('[role=img]').getAttribute('aria-label'))"
    )
    names = "[...document.querySelector('table.sortable').tBodies[0].rows].map(r => r.cells[0].textContent)"
    before = browser.run(names)
    browser.run("document.querySelectorAll('thead button')[1].click()")
    values = "[...document.querySelector('table.sortable').tBodies[0].rows].map(r => Number(r.cells[1].dataset.value))"
    sorted_down = browser.run(values)
    assert sorted_down == sorted(sorted_down, reverse=True)
    assert sorted(browser.run(names)) == sorted(before)
    light = sum(map(int, re.findall(r"\d+", browser.run("getComputedStyle(document.body).backgroundColor"))[:3]))
    assert (light < 150) == dark
    assert browser.requests == []
    assert browser.complaints == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1200])
def test_a_long_name_of_a_row_stays_in_its_column(browser, trained, width):
    browser.show(trained / "report.html", width=width, mobile=width == 360)
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    heads = "[...document.querySelectorAll('tbody th')]"
    browser.run(f"{heads}.forEach(t => {{ t.textContent = 'Task (init=' + 'encoder'.repeat(9) + ')' }})")
    assert browser.run(f"{heads}.length") > 5
    assert browser.run(f"{heads}.filter(t => t.scrollWidth > t.clientWidth + 1).length") == 0


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["trained", "many"])
def test_the_page_prints(browser, request, folder):
    browser.show(request.getfixturevalue(folder) / "report.html", width=1200, dark=True)
    assert browser.pdf().startswith(b"%PDF")
    pages = browser.pdf().count(b"/Type /Page\n")
    assert 0 < pages < 10
    browser.run("document.querySelectorAll('details.screen').forEach(d => d.open = true)")
    assert browser.pdf().count(b"/Type /Page\n") == pages  # what is folded for the screen is not printed
    browser.run("document.querySelectorAll('details.screen').forEach(d => d.classList.remove('screen'))")
    assert browser.pdf().count(b"/Type /Page\n") > pages  # other folded sections are printed
    browser.resize(718)  # A4 without margins
    browser.scheme("dark", media="print")
    assert browser.run("document.documentElement.scrollWidth") == 718
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.run("[...document.querySelectorAll('img')].every(i => i.height < 1000)")  # a page has 1047


@pytest.mark.slow
def test_a_long_table_can_be_filtered_and_keeps_its_heading(browser, many):
    browser.show(many / "report.html", width=1200)
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.run("document.querySelectorAll('.filter').length") > 0
    table = "[...document.querySelectorAll('table.sortable')].find(t => t.tBodies[0].rows.length > 100)"
    shown = f"[...({table}).tBodies[0].rows].filter(r => !r.hidden).map(r => r.cells[0].textContent)"
    everything = browser.run(f"{shown}.length")
    browser.run(
        f"(() => {{ const f = ({table}).closest('.scroll').previousElementSibling; f.value = 'a_task_3 k-nn';"
        " f.dispatchEvent(new Event('input')); })()"
    )
    assert 0 < browser.run(f"{shown}.length") < everything
    assert set(browser.run(shown)) == {"a_task_3"}
    top = f"({table}).tHead.getBoundingClientRect().top - ({table}).closest('.scroll').getBoundingClientRect().top"
    browser.run(
        f"(() => {{ const f = ({table}).closest('.scroll').previousElementSibling; f.value = '';"
        f" f.dispatchEvent(new Event('input')); ({table}).closest('.scroll').scrollTop = 400; }})()"
    )
    assert browser.run(f"({table}).closest('.scroll').scrollTop") > 100
    assert abs(browser.run(top.replace("tHead", "tHead.rows[0].cells[1]"))) < 3


@pytest.mark.slow
def test_the_browser_notices_faults(browser, tmp_path):
    (tmp_path / "bad.html").write_text(
        "<body><div style='width:700px'>x</div><img src='file:///nowhere.png'><script>nothing.at.all</script></body>"
    )
    browser.show(tmp_path / "bad.html", width=360)
    assert browser.run("document.documentElement.scrollWidth") > 360
    assert browser.requests == ["file:///nowhere.png"]
    assert any("nothing is not defined" in complaint for complaint in browser.complaints)
