"""The search page in a real browser: mouse, touch, keys, screen reader, address, fills, width. Slow; needs Chromium."""

from __future__ import annotations

import base64
import csv
import io
import re
import subprocess
import sys
import time

import pytest
from browser import browser_path
from demo_samples import png

demo = pytest.importorskip("retrieval.demo.server", reason="fastapi is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser_path() is None, reason="no Chromium on this machine"),
]

HOLE = "?number=3&how=hole&box=0.2,0.2,0.5,0.5&k=8"
NAMES = "[...results.querySelectorAll('figure img')].map(each => each.alt).join()"
DONE = "!results.hasAttribute('aria-busy') && results.querySelectorAll('figure').length"
# The contrast of every text with the nearest background behind it, but for text on a picture.
CONTRASTS = """(() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const left = '#frame, .unseen, :disabled, label:has(:disabled)';
    if (!own || !element.checkVisibility() || element.closest(left)) continue;
    let behind = element;
    while (behind && parse(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
    const colours = [element, behind].map((e, i) => parse(getComputedStyle(e)[i ? 'backgroundColor' : 'color']));
    if (colours[1][3] !== undefined) continue;  // half transparent, over a picture
    const [low, high] = colours.map(light).sort((a, b) => a - b);
    found.push([(high + 0.05) / (low + 0.05), element.outerHTML.slice(0, 80)]);
  }
  return found;
})()"""


@pytest.fixture(scope="module")
def address(demo_folders):
    """URL of the page as the command serves it."""
    words = [word for folder in demo_folders for word in ("--index", str(folder))]
    command = [sys.executable, "-m", "retrieval", "demo", *words, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
        try:
            yield re.search(r"http://127\.0\.0\.1:\d+/", served.stdout.readline())[0]
        finally:
            served.terminate()


@pytest.fixture
def shown(browser, address):
    browser.show(address, width=1280)
    wait_for(browser, f"{DONE} == 16")
    browser.run("new Promise(done => picture.complete ? done() : picture.onload = done)")
    yield browser
    assert browser.complaints == []
    assert all(url.startswith(address) for url in browser.requests)


def wait_for(browser, condition):
    deadline = time.monotonic() + 60
    while not browser.run(condition):
        assert time.monotonic() < deadline, (condition, browser.run("document.body.innerText"))
        time.sleep(0.05)


def press(browser, key, modifiers=0):
    number = {"Tab": 9, "Escape": 27, "Enter": 13}.get(key)
    about = {} if number is None else {"windowsVirtualKeyCode": number}
    if key == "Enter":
        about["text"] = "\r"
    for kind in ("keyDown", "keyUp"):
        browser.command("Input.dispatchKeyEvent", type=kind, key=key, code=key, modifiers=modifiers, **about)


def mouse(browser, kind, at, button="left"):
    left, top, width, height = browser.run("(r => [r.x, r.y, r.width, r.height])(frame.getBoundingClientRect())")
    held = 0 if kind == "Released" else {"left": 1, "right": 2}[button]
    about = {"x": left + at[0] * width, "y": top + at[1] * height, "button": button, "buttons": held, "clickCount": 1}
    browser.command("Input.dispatchMouseEvent", type=f"mouse{kind}", **about)


def drag(browser, start, end, button="left"):
    mouse(browser, "Pressed", start, button)
    mouse(browser, "Moved", end, button)
    mouse(browser, "Released", end, button)
    return pytest.approx(browser.run("state.box"), abs=0.015)


def test_it_opens_with_an_example_asked(shown):
    assert shown.run("document.querySelectorAll('#hint:not([hidden])').length") == 1
    asked = shown.run("fetch('/api/example/0').then(answer => answer.json())")
    assert shown.run("state.query") == asked["query"] and shown.run("state.how") == asked["how"] == "whole"
    assert shown.run("new URLSearchParams(location.search).get('number')") == str(asked["query"]["number"])
    assert shown.run("[...document.images].every(each => each.alt || each.closest('#layers, dialog:not([open])'))")
    heights = shown.run("[...new Set([...results.querySelectorAll('.shot')].map(each => each.offsetHeight))]")
    assert len(heights) == 1
    places = shown.run("[...results.querySelectorAll('ol')].map(l => [...l.children].map(each => each.offsetLeft))")
    assert places[0] == places[1]  # ranks are aligned


def test_a_mouse_marks_a_region(shown):
    assert drag(shown, (0.1, 0.2), (0.6, 0.6)) == [0.1, 0.2, 0.5, 0.4]
    assert shown.run("state.how") == "box" and shown.run("hint.hidden")
    mouse(shown, "Moved", (0.9, 0.9))  # no button is pressed
    assert drag(shown, (0.3, 0.4), (0.4, 0.5)) == [0.2, 0.3, 0.5, 0.4]
    assert drag(shown, (0.7, 0.7), (0.8, 0.9)) == [0.2, 0.3, 0.6, 0.6]  # a corner
    assert drag(shown, (0.2, 0.3), (0.1, 0.1)) == [0.1, 0.1, 0.7, 0.8]
    assert drag(shown, (0.02, 0.02), (0.9, 0.9), "right") == [0.1, 0.1, 0.7, 0.8]
    wait_for(shown, "location.search.includes('how=box')")


def test_keys_mark_a_region_and_the_focus_is_seen(shown):
    shown.run("document.querySelector('[value=box]').click()")
    shown.run("state.box = [0.2, 0.2, 0.5, 0.5]; placeBox(); help.querySelector('summary').focus()")
    seen, before = [], shown.run("state.box")
    for _ in range(9):
        press(shown, "Tab")
        seen.append(shown.run("document.activeElement.id || document.activeElement.name"))
        ring = "(e => getComputedStyle(e).outlineStyle + getComputedStyle(e.closest('label') || e).outlineStyle)"
        assert "solid" in shown.run(f"{ring}(document.activeElement)"), seen
        if seen[-1] == "box":
            assert "Arrow keys" in shown.run("hint.hidden ? '' : hint.textContent")
            press(shown, "ArrowRight")
            press(shown, "ArrowUp", modifiers=8)
    assert seen[:4] == ["box", "how", "surprise", "file"]
    assert shown.run("state.box") == pytest.approx([before[0] + 0.02, before[1], before[2], before[3] - 0.02])
    wait_for(shown, "location.search.includes(state.box.map(each => Number(each.toFixed(4))).join())")


def test_a_neighbour_can_be_asked_and_back_returns(shown):
    first = shown.run(NAMES), shown.run("location.search")
    shown.run("results.querySelector('.shot').focus()")
    press(shown, "Enter")
    assert shown.run("document.activeElement.id") in ("box", "results")
    wait_for(shown, f"location.search != {first[1]!r} && {DONE} == 16")
    second = shown.run(NAMES), shown.run("location.search")
    assert second[0] != first[0]
    shown.run("history.back()")
    wait_for(shown, f"location.search == {first[1]!r} && {DONE} == 16 && {NAMES} == {first[0]!r}")
    shown.run("history.forward()")
    wait_for(shown, f"location.search == {second[1]!r} && {DONE} == 16 && {NAMES} == {second[0]!r}")


@pytest.mark.parametrize(
    "asked", [HOLE, "?index=2&number=5&how=box&box=0.1,0.3,0.4,0.25&k=3", "?number=7&how=whole&k=12"]
)
def test_an_address_asks_the_same_again(browser, address, asked):
    found = []
    for _ in range(2):
        browser.show(f"{address}{asked}", width=1280)
        wait_for(browser, DONE)
        found.append(browser.run(NAMES))
        assert browser.run("location.search") == asked
        browser.run("document.querySelector('#choices button').click()")
        wait_for(browser, f"location.search != {asked!r}")
    assert found[0] == found[1]


def test_a_neighbour_is_shown_large(shown):
    shown.run("results.querySelectorAll('.corner')[1].focus()")
    press(shown, "Enter")
    wait_for(shown, "large.open && big.complete && found.complete")
    assert shown.run("about.textContent").startswith("2 of 8 by")
    assert "drawn at random have" in shown.run("which.textContent")
    shown.run("after.click()")
    assert shown.run("about.textContent").startswith("3 of 8 by")
    press(shown, "ArrowLeft")
    assert shown.run("about.textContent").startswith("2 of 8 by")
    press(shown, "Escape")
    wait_for(shown, "!large.open")
    assert shown.run("document.activeElement.className") == "corner"


def test_lines_can_be_left_out(shown):
    shown.run("document.querySelectorAll('#shown input')[2].click()")
    lines = "[...results.children].map(each => each.hidden)"
    assert shown.run(lines) == [False, False, True]
    shown.run("document.querySelector('.shot').click()")
    wait_for(shown, f"state.searches > 1 && {DONE}")
    assert shown.run(lines) == [False, False, True]


def test_a_hole_is_filled_in_its_place(shown):
    shown.run("document.querySelector('[value=hole]').click()")
    assert shown.run("!$('filling').hidden || !fills.hidden") is True
    wait_for(shown, "!fills.hidden")
    assert shown.run("$('filling').hidden")
    names = shown.run("methods.map(each => each.name)")
    assert names[0] == "hole" and names[-1] == "original" and len(names) == 8
    opacities = "[...layers.children].map(each => Number(each.style.opacity))"
    for key, shares in (("Home", [0, 0, 0]), ("ArrowRight", [1, 0, 0]), ("ArrowRight", [1, 1, 0])):
        shown.run("$('stop').focus()")
        press(shown, key)
        assert shown.run(opacities)[:3] == shares
        assert shown.run("$('stop').getAttribute('aria-valuetext')") == names[sum(shares)].replace("_", " ")
    shown.run("$('stop').value = 1.25; $('stop').dispatchEvent(new Event('input'))")
    assert shown.run(opacities)[:3] == [1, 0.25, 0]
    shown.run("$('stop').dispatchEvent(new Event('change'))")
    assert shown.run(opacities)[:3] == [1, 0, 0]
    # The response to an outdated query is not shown.
    shown.run("(async () => { const late = fill(); choices.children[3].click(); await late; })()")
    shown.run("document.querySelector('[value=whole]').click()")
    assert shown.run("fills.hidden && !layers.children.length")


def test_the_number_of_neighbours_is_bounded(shown):
    shown.run("$('k').value = 70; $('k').dispatchEvent(new Event('change'))")
    assert shown.run("$('k').value") == "50" and "k=50" in shown.run("location.search")


def test_a_file_is_uploaded(browser, address, tmp_path):
    def upload(name, content, said):
        (tmp_path / name).write_bytes(content)
        root = browser.command("DOM.getDocument")["root"]["nodeId"]
        field = browser.command("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        browser.command("DOM.setFileInputFiles", nodeId=field, files=[str(tmp_path / name)])
        wait_for(browser, f"$('status').textContent.includes('{said}')")

    browser.show(address, width=1280)
    wait_for(browser, f"{DONE} == 16")
    upload("picture.png", png(), "Searched")
    wait_for(browser, "location.search.startsWith('?upload=')")
    upload("text.png", b"text", "not a readable picture")
    upload("large.png", png((8000, 5001)), "more than 40 million pixels")
    upload("heavy.png", b"x" * (demo.MAX_BYTES + 1), "larger than 20 MB")


def test_a_finger_marks_a_region(browser, address):
    browser.command("Emulation.setTouchEmulationEnabled", enabled=True)
    try:
        browser.show(address, width=360, mobile=True)
        wait_for(browser, f"{DONE} && picture.naturalWidth")
        touch(browser, (0.1, 0.2), (0.6, 0.6))
        assert browser.run("state.box") == pytest.approx([0.1, 0.2, 0.5, 0.4], abs=0.02)
        assert browser.run("state.how") == "box" and browser.run("scrollY") == 0
        touch(browser, (0.3, 0.4), (0.4, 0.5))  # moves it
        assert browser.run("state.box") == pytest.approx([0.2, 0.3, 0.5, 0.4], abs=0.02)
        touch(browser, (0.67, 0.67), (0.77, 0.87))  # pulls a corner, touched beside it
        assert browser.run("state.box") == pytest.approx([0.2, 0.3, 0.57, 0.57], abs=0.02)
        wait_for(browser, "location.search.includes('how=box')")
        targets = "button, .button, .segments label, #box i"
        small = f"[...document.querySelectorAll('{targets}')].filter(e => e.checkVisibility())"
        sides = "(r => Math.min(r.width, r.height))(e.getBoundingClientRect())"
        assert browser.run(f"Math.min(...{small}.map(e => {sides}))") >= 34
        assert browser.run("document.documentElement.scrollWidth") == 360
    finally:
        browser.command("Emulation.setTouchEmulationEnabled", enabled=False)


def touch(browser, start, end):
    left, top, width, height = browser.run("(r => [r.x, r.y, r.width, r.height])(frame.getBoundingClientRect())")
    for kind, at in (("Start", [start]), ("Move", [end]), ("End", [])):
        points = [{"x": left + x * width, "y": top + y * height} for x, y in at]
        browser.command("Input.dispatchTouchEvent", type=f"touch{kind}", touchPoints=points)
    wait_for(browser, DONE)


def test_a_screen_reader_is_told_what_is_found(shown):
    tree = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in shown.command("Accessibility.getFullAXTree")["nodes"]
        if not node.get("ignored")
    ]
    acted = ("button", "radio", "checkbox", "slider", "spinbutton", "link", "image", "region")
    assert [role for role, name in tree if role in acted and not name.strip()] == []
    assert {("radio", "Whole picture"), ("group", "Search with"), ("button", "Copy link")} <= {*tree}
    assert {("heading", "Similar regions"), ("spinbutton", "Neighbours"), ("region", "Question")} <= {*tree}
    said = shown.run("$('status').textContent")
    best = shown.run("state.results.flatMap(each => each.neighbours ? [each.neighbours[0].name] : [])")
    assert "status" in [role for role, _ in tree] and said.startswith("Searched in ")
    assert said.count(": 8 neighbours, the nearest is ") == len(best) == 2
    assert all(f"{name}, " in said for name in best)
    assert said.count("This index holds surroundings of holes") == 1
    drag(shown, (0.1, 0.2), (0.6, 0.6))
    wait_for(shown, "$('status').textContent.includes('Marked region: left 10 %, top 20 %, 50 % wide, 40 % high.')")


def test_a_picture_is_dropped_or_pasted(shown):
    pixels = base64.b64encode(png()).decode()
    for event, field in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        shown.run(f"""(() => {{
            const bytes = Uint8Array.from(atob("{pixels}"), letter => letter.charCodeAt(0));
            const given = new DataTransfer();
            given.items.add(new File([bytes], "red.png", {{ type: "image/png" }}));
            const event = new Event("{event}", {{ bubbles: true, cancelable: true }});
            event.{field} = given;
            document.body.dispatchEvent(event);
        }})()""")
        wait_for(shown, f"{DONE} && state.query.upload")
        shown.run("history.back()")
        wait_for(shown, f"{DONE} && state.query.upload === undefined")


def test_neighbours_are_saved_as_a_table(shown):
    shown.run("state.results[0].neighbours[0].name = '=a,\"b'")
    lines = list(csv.DictReader(io.StringIO(shown.run("tableOf(state.results)"))))
    found = shown.run("state.results.flatMap(each => each.neighbours || [])")
    assert [int(line["number"]) for line in lines] == [each["number"] for each in found]
    assert [float(line["cosine"]) for line in lines] == [each["similarity"] for each in found]
    assert lines[0]["picture"] == "'=a,\"b"
    shown.run("shown.querySelector('input').click()")  # a line that is not shown is not saved
    assert shown.run("tableOf(state.results)").count("\r\n") == 9


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
def test_text_is_readable_and_the_page_fits(browser, address, width, dark):
    browser.show(f"{address}{HOLE}", width=width, dark=dark, mobile=width < 500)
    wait_for(browser, f"{DONE} && !fills.hidden")
    browser.run("setStatus('a_long_path/'.repeat(20).replaceAll('/', '_'), true); help.open = true")
    assert browser.run("document.documentElement.scrollWidth") == width
    found = browser.run(CONTRASTS)
    assert len(found) > 40 and not [each for each in found if each[0] < 4.5]
    browser.run("results.querySelector('.corner').click()")
    wait_for(browser, "large.open")
    assert browser.run("large.scrollWidth <= large.clientWidth && document.documentElement.scrollWidth") == width
    assert not [each for each in browser.run(CONTRASTS) if each[0] < 4.5]
    assert browser.complaints == []
