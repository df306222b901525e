"""What every test has: a cache outside of the user's."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Keep packs and features of the whole run in one folder of pytest's; a test that counts them sets its own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRETEXT_CACHE", str(folder))
        yield folder


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """An empty cache for one test, where what others have left there would matter."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("PRETEXT_CACHE", str(folder))
    return folder
