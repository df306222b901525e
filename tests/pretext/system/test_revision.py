"""The revision of the code: its commit, whether it has changes, and nothing outside of its own checkout."""

from __future__ import annotations

import subprocess

import pytest

from pretext.system import revision as module


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder that looks like the root of the package."""
    file = tmp_path / "pretext" / "system" / "revision.py"
    file.parent.mkdir(parents=True)
    file.write_text("first\n")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "version", lambda: "")
    module.revision.cache_clear()
    yield tmp_path
    module.revision.cache_clear()


def git(folder, *words):
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    return subprocess.run(["git", "-C", folder, *who, *words], check=True, capture_output=True, text=True).stdout


def test_a_commit_is_named_and_a_change_makes_it_dirty(root):
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    assert module.revision() == (git(root, "rev-parse", "HEAD").strip(), False)
    (root / "pretext" / "revision.py").write_text("second\n")
    assert not module.revision().dirty, "it is read once"
    module.revision.cache_clear()
    assert module.revision().dirty


def test_an_untracked_task_is_a_change_and_an_untracked_note_is_not(root):
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    (root / "notes.py").write_text("")
    (root / "pretext" / "notes.txt").write_text("")
    assert not module.revision().dirty
    module.revision.cache_clear()
    task = root / "pretext" / "tasks" / "mine.py"
    task.parent.mkdir()
    task.write_text("")
    assert module.revision().dirty


def test_somebody_elses_checkout_is_not_taken_for_ours(root):
    git(root.parent, "init", "-q")
    assert module.revision() == ("", False)


def test_no_git_on_the_machine(root, monkeypatch):
    (root / ".git").mkdir()
    monkeypatch.setenv("PATH", str(root))
    assert module.revision() == ("", False)
