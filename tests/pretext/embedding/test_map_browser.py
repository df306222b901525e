"""The map in a browser: mouse, keys and touch, light and dark, on a phone and a screen; nothing is loaded."""

from __future__ import annotations

import json
import re

import pytest
from embedding_samples import embed, write_encoder, write_pictures

PLACE = """(() => {{
  const box = document.getElementById("map").getBoundingClientRect();
  return [box.left + toX(content.x[{0}]), box.top + toY(content.y[{0}])];
}})()"""
READY = "new Promise((done) => setTimeout(done, 300))"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("map")
    encoder = write_encoder(folder / "encoder.safetensors")
    found = {}
    for name, classes in (("classes", ("cat", "dog", "owl")), ("plain", ())):
        data = write_pictures(folder / name, train=40, classes=classes)
        found[name] = folder / f"{name}.html"
        spec = f"folder:{data if classes else data / 'train'}"
        embed("--encoder", encoder, "--data", spec, "--out", folder / f"{name}.npz", "--map", found[name])
    return found


def key(browser, *names):
    for name in names:
        for kind in ("keyDown", "keyUp"):
            browser.command("Input.dispatchKeyEvent", type=kind, key=name)


def shown(browser):
    """The class, name and split that the small figure shows; None if there is none."""
    script = """(() => {
      const figure = document.getElementById("shown"), image = figure.querySelector("img");
      const said = figure.querySelector("figcaption").textContent;
      return figure.hidden ? null : [said, image.complete && image.naturalWidth];
    })()"""
    return browser.run(script)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["classes", "plain"])
@pytest.mark.parametrize(("width", "dark"), [(390, False), (1200, False), (1200, True)])
def test_pointing_at_a_picture_shows_it(browser, pages, name, width, dark):
    browser.show(pages[name], width=width, dark=dark, mobile=width < 600)
    browser.run("document.getElementById('frame').scrollIntoView()")
    browser.run(READY)
    assert browser.run("document.documentElement.scrollWidth") == width
    assert shown(browser) is None
    x, y = browser.run(PLACE.format(3))
    if width < 600:
        browser.command("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        browser.command("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    else:
        browser.command("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    browser.run(READY)
    at = browser.run("state.at")
    label, file, split = browser.run(f"[content.labels[{at}], content.names[{at}], content.splits[{at}]]")
    assert shown(browser) == [f"{label}{file} · {split}", 30]
    assert (abs(browser.run(PLACE.format(at))[0] - x), abs(browser.run(PLACE.format(at))[1] - y)) < (28, 28)
    light = sum(map(int, re.findall(r"\d+", browser.run("getComputedStyle(document.body).backgroundColor"))[:3]))
    assert (light < 150) == dark
    assert browser.run("document.getElementById('by').hidden") == (name == "plain")
    assert browser.requests == [] and browser.complaints == []


@pytest.mark.slow
def test_keys_walk_zoom_and_close(browser, pages):
    browser.show(pages["classes"], width=1200)
    browser.run(READY)
    browser.run("document.getElementById('map').focus()")
    key(browser, "ArrowRight")
    first = browser.run("state.at")
    key(browser, "ArrowRight")
    second = browser.run("state.at")
    assert first >= 0 and browser.run(f"content.x[{second}] > content.x[{first}]")
    assert browser.run(f"document.getElementById('said').textContent.includes(content.names[{second}])")
    before = browser.run(PLACE.format(second))
    key(browser, "+", "+")
    assert browser.run("state.zoom") == pytest.approx(2.25)
    assert browser.run(PLACE.format(second)) == pytest.approx(before, abs=1)
    key(browser, "0", "Escape")
    assert browser.run("[state.zoom, state.at]") == [1, -1] and shown(browser) is None
    assert browser.complaints == []


@pytest.mark.slow
def test_dragging_moves_the_map_and_the_wheel_zooms_where_it_points(browser, pages):
    browser.show(pages["classes"], width=1200)
    browser.run(READY)
    x, y = browser.run(PLACE.format(0))
    browser.command("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-400)
    browser.run(READY)
    assert browser.run("state.zoom") > 2
    assert browser.run(PLACE.format(0)) == pytest.approx([x, y], abs=2)
    mouse = {"x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1}
    browser.command("Input.dispatchMouseEvent", type="mousePressed", **mouse)
    for step in (1, 2):
        browser.command("Input.dispatchMouseEvent", type="mouseMoved", **mouse | {"x": x + 20 * step, "y": y})
    browser.command("Input.dispatchMouseEvent", type="mouseReleased", **mouse | {"x": x + 40})
    assert browser.run(PLACE.format(0)) == pytest.approx([x + 40, y], abs=2)


@pytest.mark.slow
def test_a_chosen_group_is_brought_out(browser, pages):
    browser.show(pages["classes"], width=1200)
    browser.run(READY)
    names = browser.run("[...document.querySelectorAll('#groups button span')].map((each) => each.textContent)")
    assert sorted(names) == ["cat", "dog", "owl"]
    browser.run("document.querySelectorAll('#groups button')[1].click()")
    assert browser.run("document.querySelectorAll('#groups button')[1].getAttribute('aria-pressed')") == "true"
    browser.run("document.getElementById('map').focus()")
    key(browser, "ArrowRight", "ArrowDown", "ArrowRight")
    assert browser.run("content.labels[state.at]") == names[1]
    browser.run("document.querySelector('#by input[value=split]').click()")
    found = "[...document.querySelectorAll('#groups button')].map((each) => each.textContent)"
    assert browser.run(found) == ["train40", "val4", "test4"]
    drawn = (
        "(() => { paint(); return [...brush.getImageData(0, 0, canvas.width, canvas.height).data].some(Boolean); })()"
    )
    assert json.dumps(browser.run(drawn)) == "true"
    browser.run("document.getElementById('pictures').click()")
    browser.run(READY)
    assert browser.run("images.length === count && images.every((each) => each.naturalWidth > 0)")
    assert browser.complaints == []
