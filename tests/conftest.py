"""What tests share: their order, a cache outside of the user's, and a browser."""

from __future__ import annotations

import pytest
from browser import Browser, browser_path
from longest_files import LONGEST


def pytest_collection_modifyitems(items):
    """Put the files that take longest first."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Keep packs and features of the whole run in one folder of pytest's; a test that counts them sets its own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRETEXT_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def cache_of_features(monkeypatch):
    """Undo `--cache-gb` of a command that an earlier test has run: it is kept in the environment, for workers."""
    monkeypatch.delenv("PRETEXT_FEATURES_GB", raising=False)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """An empty cache for one test, where what others have left there would matter."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("PRETEXT_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser for one module; skipped where there is none."""
    if browser_path() is None:
        pytest.skip("no Chromium on this machine")
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened
