"""Cached content hashes: damaged ones are computed again, and a file that cannot be read is named."""

from __future__ import annotations

import errno
import io
import os

import pytest
from dataset_samples import one_line

import pretext.datasets.fingerprints
from pretext.datasets.fingerprints import digest_files
from pretext.system.errors import UserError


@pytest.fixture
def settled(own_cache, tmp_path):
    """A file, and a cache of its own."""
    file = tmp_path / "data" / "a.bin"
    file.parent.mkdir()
    file.write_bytes(b"content")
    return file


@pytest.mark.parametrize("damage", [b"", b"\xff" * 32, b"no hash, but of the same length!", b"0" * 31])
def test_a_damaged_hash_is_computed_again(settled, own_cache, monkeypatch, damage):
    monkeypatch.setattr(pretext.datasets.fingerprints, "SETTLED_NS", -1)
    expected = digest_files(settled.parent, [str(settled)])
    (stored,) = (own_cache / "fingerprints").iterdir()
    stored.write_bytes(damage)
    assert digest_files(settled.parent, [str(settled)]) == expected
    assert stored.read_text() == expected


def test_an_error_while_reading_names_the_file(settled, monkeypatch):
    class Failing(io.BytesIO):
        def read(self, *_):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(pretext.datasets.fingerprints, "open", lambda *_, **__: Failing(), raising=False)
    with pytest.raises(UserError, match=r"a\.bin: Input/output error") as caught:
        digest_files(settled.parent, [str(settled)])
    one_line(caught)
