"""OUT/environment.json: what an installation holds."""

from __future__ import annotations

import pytest

from benchmarks.records import environment


@pytest.fixture
def listed_anew():
    """Read the packages again, before and after."""
    environment._packages.cache_clear()
    yield
    environment._packages.cache_clear()


def test_a_broken_installation_is_left_out_and_the_file_can_be_read_again(tmp_path, monkeypatch, listed_anew):
    for name, text in (("torn-1.0", ""), ("My_Own-2.5", "Metadata-Version: 2.1\nName: My_Own\nVersion: 2.5\n")):
        folder = tmp_path / "site" / f"{name}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "site")
    environment.write_environment(tmp_path, workers=1, threads=1)
    (entry,) = environment.read_environments(tmp_path)
    assert entry["packages"]["my-own"] == "2.5" and "torch" in entry["packages"]
    assert "none" not in entry["packages"]
