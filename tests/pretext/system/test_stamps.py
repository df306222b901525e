"""Stamps on checked folders: any change of a file voids them, and so do another machine and a damaged stamp."""

from __future__ import annotations

import os
import shutil

import pytest

import pretext.system.stamps
from pretext.system.stamps import is_stamped, stamp, state_to_check

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def folder(tmp_path):
    """A folder with two files, stamped."""
    folder = tmp_path / "checked"
    folder.mkdir()
    for name in ("a.bin", "b.bin"):
        (folder / name).write_bytes(name.encode())
    stamp(folder, state_to_check(folder))
    assert is_stamped(folder)
    return folder


def change_and_hide_it(folder):
    before = (folder / "a.bin").stat()
    (folder / "a.bin").write_bytes(b"A.bin")
    os.utime(folder / "a.bin", ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_a_copy(folder):
    shutil.copy2(folder / "a.bin", folder / "copy")
    (folder / "copy").replace(folder / "a.bin")


CHANGES = {
    "hidden": change_and_hide_it,
    "copied": replace_by_a_copy,
    "touched": lambda folder: os.utime(folder / "a.bin"),
    "cut": lambda folder: os.truncate(folder / "a.bin", 2),
    "deleted": lambda folder: (folder / "a.bin").unlink(),
    "added": lambda folder: (folder / "c.bin").touch(),
    "all deleted": shutil.rmtree,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_changed_file_voids_the_stamp(folder, change):
    change(folder)
    assert not is_stamped(folder)


def test_a_moved_folder_keeps_its_files_but_another_one_needs_its_own_stamp(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "elsewhere" / "checked")
    assert is_stamped(folder) and not is_stamped(other)


def test_each_machine_checks_for_itself(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("pretext.system.stamps.HOST", "another machine")
        assert not is_stamped(folder)
        stamp(folder, state_to_check(folder))
        assert is_stamped(folder)
    assert is_stamped(folder)


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b"\xff", b'{"a.bin": [5, 1, 1, 1]}'])
def test_a_damaged_stamp_is_none(folder, own_cache, damage):
    (stored,) = (own_cache / "checked").iterdir()
    stored.write_bytes(damage)
    assert not is_stamped(folder)


def test_files_that_could_still_change_unnoticed_get_no_stamp(folder, monkeypatch):
    monkeypatch.setattr(pretext.system.stamps, "LOOKS", 2)
    monkeypatch.setattr(pretext.system.stamps, "_clock", lambda _: (folder / "b.bin").stat().st_ctime_ns)
    assert state_to_check(folder) is None


def test_a_change_after_the_look_voids_the_stamp_of_the_check(folder):
    os.utime(folder / "a.bin")
    state = state_to_check(folder)
    change_and_hide_it(folder)
    stamp(folder, state)
    assert not is_stamped(folder)


def test_looking_leaves_nothing_beside_the_folder(folder, tmp_path):
    state_to_check(folder)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["cache", "checked"]


def test_a_cache_that_cannot_be_written_is_no_error(folder, own_cache):
    shutil.rmtree(own_cache)
    own_cache.write_text("a file in its place")
    stamp(folder, state_to_check(folder))
    assert not is_stamped(folder)
