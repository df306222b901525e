"""Tar shards: what their index finds, which shards a pattern names, and what is said of faulty ones."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile

import dataset_samples
import pytest
from dataset_samples import fails, one_line
from PIL import Image
from store_samples import add, write_shards

import pretext.datasets.fingerprints
import pretext.datasets.tar_index
from pretext.datasets import BadImage, at_size, open_dataset
from pretext.datasets.shards import expanded
from pretext.datasets.tar_index import indexed
from pretext.system.errors import UserError


def png(number):
    stream = io.BytesIO()
    Image.fromarray(dataset_samples.pixels(1, number)).save(stream, "PNG")
    return stream.getvalue()


def shard(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            add(archive, name, content)
    return path


def samples(count, first=0, label=lambda number: str(number % 2)):
    """Return the members of some samples, a picture and its class each."""
    for number in range(first, first + count):
        yield f"{number:04}.png", png(number)
        if label(number) is not None:
            yield f"{number:04}.cls", label(number).encode()


@pytest.mark.parametrize("form", ["gnu", "ustar", "pax", "v7"])
def test_the_index_of_a_tar_that_another_program_wrote(tmp_path, form):
    names = ["a.jpg", "folder/ä ö.png", "folder/b.JPG"] + ["x" * 70 + "/" + "y" * 90 + ".webp"] * (form != "v7")
    for number, name in enumerate(names):
        dataset_samples.write(tmp_path / "in" / name, f"content {number}" * (number + 1))
    dataset_samples.write(tmp_path / "in" / ".hidden.jpg", "hidden")
    dataset_samples.write(tmp_path / "in" / "a.json", "{}")
    dataset_samples.write(tmp_path / "in" / "readme.txt", "no picture")
    os.link(tmp_path / "in" / "a.jpg", tmp_path / "in" / "hard.jpg")
    (tmp_path / "in" / "soft.jpg").symlink_to("a.jpg")
    file = tmp_path / "out.tar"
    subprocess.run(["tar", f"--format={form}", "-cf", file, "-C", tmp_path / "in", "."], check=True)
    (index,) = indexed([str(file)])
    content = file.read_bytes()
    found = {
        name: content[start : start + size]
        for name, start, size in zip(index.names, index.offsets, index.sizes, strict=True)
    }
    assert found == {name: (tmp_path / "in" / name).read_bytes() for name in [*names, "hard.jpg"]}
    assert index.links == 1 and index.ended and [*index.json] == ["a"]


def test_the_index_is_kept_and_is_made_again_when_it_or_the_shard_changes(tmp_path, own_cache, monkeypatch):
    monkeypatch.setattr(pretext.datasets.fingerprints, "SETTLED_NS", -1)
    file = shard(tmp_path / "a.tar", samples(3))
    read = []
    real = pretext.datasets.tar_index._read
    monkeypatch.setattr(pretext.datasets.tar_index, "_read", lambda path: read.append(path) or real(path))
    first = indexed([str(file)])
    assert indexed([str(file)]) == first and len(read) == 1
    (stored,) = (own_cache / "shards").iterdir()
    stored.write_text('{"names": [1]}')
    assert indexed([str(file)]) == first and len(read) == 2
    shard(file, samples(4))
    assert len(indexed([str(file)])[0].names) == 4 and len(read) == 3


@pytest.mark.parametrize("cut", [100, 600, 1500, 3000])
def test_a_truncated_shard_is_named(tmp_path, cut):
    file = shard(tmp_path / "a.tar", samples(10))
    file.write_bytes(file.read_bytes()[:cut])
    fails(f"wds:{tmp_path}", r"a\.tar: (is truncated|not a tar archive)")


def test_a_shard_that_ends_between_two_members_is_a_fault(tmp_path):
    file = shard(tmp_path / "a.tar", samples(10))
    with tarfile.open(file) as archive:
        last = archive.getmembers()[-2]
    file.write_bytes(file.read_bytes()[: last.offset])
    data = open_dataset(f"wds:{tmp_path}")
    assert sum(map(len, data.splits.values())) == 9
    assert any("end is missing in a.tar" in note for note in data.notes)


def test_other_files_than_tar_are_named(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no tar at all" * 100)
    fails(f"wds:{tmp_path}", r"a\.tar: not a (sound )?tar archive")
    with tarfile.open(tmp_path / "a.tar", "w:gz") as archive:
        add(archive, "0.png", png(0))
    fails(f"wds:{tmp_path}", r"a\.tar: is compressed.*gzip -d")


def test_samples_that_are_not_whole(tmp_path):
    members = [*samples(9), ("0009.cls", b"1"), ("0010.png", b""), ("0010.cls", b"0"), ("0011.png", png(11)[:60])]
    shard(tmp_path / "a.tar", [*members, ("0011.cls", b"1")])
    data = open_dataset(f"wds:{tmp_path}")
    assert any("1 samples of train have no picture and are left out: a.tar: 0009" in note for note in data.notes)
    sized = at_size(data, 16, bad_images="skip")
    skipped = [reason for part in sized.splits.values() for reason in part.skipped]
    assert len(skipped) == 2 and any("a.tar: 0010.png: empty file" in reason for reason in skipped)
    shard(tmp_path / "a.tar", samples(9, label=lambda number: None if number == 4 else "1"))
    fails(f"wds:{tmp_path}?classes=names.txt", "names.txt")
    (tmp_path / "names.txt").write_text("x\ny\n")
    fails(f"wds:{tmp_path}?classes=names.txt", "1 of 9 pictures in train have no class, 0004.png.*label=none")
    assert open_dataset(f"wds:{tmp_path}?label=none").annotations == frozenset()


def test_names_must_differ_in_a_shard_and_need_not_between_shards(tmp_path):
    shard(tmp_path / "a.tar", [*samples(4), *samples(1)])
    fails(f"wds:{tmp_path}", "a.tar: holds 0000.png twice")
    for number in range(3):
        shard(tmp_path / "many" / f"{number}.tar", ((name, c) for (name, c) in samples(4)))
    data = open_dataset(f"wds:{tmp_path / 'many'}")
    assert sum(map(len, data.splits.values())) == 12
    assert data.base.base.images[0] == "0/0000.png"


def test_several_pictures_in_a_sample(tmp_path):
    members = [
        (f"{n}.{suffix}", png(10 * n + k)) for n in range(9) for k, suffix in enumerate(["left.png", "right.png"])
    ]
    shard(tmp_path / "a.tar", [*members, *((f"{n}.cls", b"dog" if n % 2 else b"cat") for n in range(9))])
    fails(f"wds:{tmp_path}", r"a\.tar: the sample 0 holds several pictures \(left.png, right.png\); image=left.png")
    data = open_dataset(f"wds:{tmp_path}?image=right.png")
    assert data.classes == ("cat", "dog") and {name[1:] for name in data.base.base.images} == {".right.png"}
    fails(f"wds:{tmp_path}?image=jpg", "image=jpg: no sample has one; there are left.png, right.png")


def test_classes_from_numbers_a_file_and_json(tmp_path):
    shard(tmp_path / "a.tar", samples(8))
    assert open_dataset(f"wds:{tmp_path}").classes == ("0", "1")
    (tmp_path / "classes.txt").write_text("\ufeffcat\ndog\nfox\n", encoding="utf-8")
    assert open_dataset(f"wds:{tmp_path}").classes == ("cat", "dog", "fox")
    shard(tmp_path / "a.tar", samples(8, label=str))
    fails(f"wds:{tmp_path}", "0003.png has the class 3, which is not known; there are 3 classes")
    folder = tmp_path / "folder"
    dataset_samples.folder(folder, 1)
    data = open_dataset(f"wds:{write_shards(folder, tmp_path / 'json', label='json')}")
    assert not data.classes and "label=KEY" in data.lacking["label"]
    with pytest.raises(UserError, match="label=KEY names their key"):
        data.require("label")
    fails(f"wds:{tmp_path / 'json'}?label=about", "about is .* a class is a name or a whole number")
    fails(f"wds:{tmp_path / 'json'}?label=nothing", "label=nothing: no .json member has this key")
    fails(f"wds:{tmp_path / 'json'}?label=cls", "no shard holds .cls members")


def test_a_shard_that_shrinks_while_it_is_read_is_named(tmp_path):
    file = shard(tmp_path / "a.tar", samples(8))
    data = open_dataset(f"wds:{tmp_path}")
    os.truncate(file, 600)
    with pytest.raises((UserError, BadImage), match=r"a\.tar") as caught:
        list(data)
    one_line(caught)


NAMES = ["000.tar", "001.tar", "002.tar", "a,b.tar", "{x}.tar", "val-0.tar"]


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("{000..002}.tar", NAMES[:3]),
        ("{002..001}.tar", NAMES[1:3]),
        ("00{0,2}.tar", [NAMES[0], NAMES[2]]),
        ("00[01].tar", NAMES[:2]),
        ("*.tar", NAMES),
        (".", NAMES),
        ("000.tar,val-*.tar", [NAMES[0], NAMES[5]]),
        ("a,b.tar", [NAMES[3]]),
        ("{x}.tar", [NAMES[4]]),
        ("0{0{0,1},02}.tar", NAMES[:3]),
        ("{000,000}.tar", NAMES[:1]),
    ],
)
def test_patterns(tmp_path, monkeypatch, pattern, wanted):
    for name in NAMES:
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    assert [os.path.normpath(file) for file in expanded("wds", pattern, suffix=".tar")] == sorted(wanted)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{000..004}.tar", r"no such file 003.tar \(2 of 5 files are missing\)"),
        ("x*.tar", "no file fits x"),
        ("inside", "no .tar files in inside"),
        ("{0..99999999}.tar", "more than 100,000 names"),
    ],
)
def test_patterns_that_fit_nothing(tmp_path, monkeypatch, pattern, message):
    (tmp_path / "inside").mkdir()
    for name in NAMES:
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    fails(f"wds:{pattern}", message)


def test_shards_are_of_the_split_that_a_key_or_their_name_says(tmp_path):
    for number, name in enumerate(["imagenet-train-0", "imagenet-validation-0", "more/test/0", "spare"]):
        shard(tmp_path / f"{name}.tar", samples(3, first=10 * number))
    data = open_dataset(f"wds:{tmp_path}")
    assert {name: len(part) for name, part in data.splits.items()} == {"train": 3, "val": 3, "test": 3}
    assert any("1 files are of no split and are not used: spare.tar" in note for note in data.notes)
    data = open_dataset(f"wds:{tmp_path}?train=spare.tar&test=imagenet-*.tar&val=more")
    assert {name: len(part) for name, part in data.splits.items()} == {"train": 3, "val": 3, "test": 6}
    fails(f"wds:{tmp_path}?train=spare.tar&val=*.tar", "spare.tar is in train and in val")
    fails(f"wds:{tmp_path}?train=nothing.tar", "train=nothing.tar: no such file")
