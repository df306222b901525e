"""The commands `index` and `search`, and the same search from Python."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from index_samples import SPEC, class_folders, make_encoder, photographs
from PIL import Image

import retrieval
from pretext.datasets import BadImage, open_dataset
from pretext.encoders import Encoder, save_encoder
from pretext.system.errors import UserError
from pretext.transforms.masks import MEAN_COLOUR
from retrieval.__main__ import main
from retrieval.indexing.index import PatchIndex
from retrieval.originals import file_of
from retrieval.searcher import Searchable


def test_the_command_makes_an_index_and_lets_it_grow(
    encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_encoder(encoder, tmp_path / "encoder.safetensors", {})
    folder = photographs(tmp_path / "photos", range(12))
    argv = ["index", "--encoder", str(tmp_path / "encoder.safetensors"), "--data", f"folder:{folder}"]
    argv += ["--mode", "images", "--pca", "6", "--out", str(tmp_path / "index")]
    assert main(argv) == 0
    assert "12 images" in capsys.readouterr().out
    with pytest.raises(UserError, match="--add adds new pictures"):
        main(argv)
    photographs(folder, range(12, 15))
    asked = ["search", str(tmp_path / "index"), "--image", str(folder / "013.png"), "--out", str(tmp_path / "found")]
    with pytest.raises(UserError, match="add new pictures with index --add"):
        main(asked)
    assert main([*argv, "--add"]) == 0
    assert "15 images" in (said := capsys.readouterr().out)
    assert "6 dimensions, PCAW6,L2norm,Flat" in said
    assert main(asked) == 0
    found = json.loads((tmp_path / "found" / "neighbours.json").read_text())["neighbours"]
    assert Path(found[0]["file"]).name == "013.png"
    assert found[0]["similarity"] == pytest.approx(1, abs=1e-3)


def test_an_index_knows_its_pictures_from_any_folder(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_encoder(encoder, tmp_path / "folder.safetensors", {})
    photographs(tmp_path / "folder", range(6))
    monkeypatch.chdir(tmp_path)
    argv = ["--encoder", "folder.safetensors", "--data", "folder:folder?limit=5", "--mode", "images", "--out", "index"]
    assert main(["index", *argv]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["search", "../index", "--query", "0", "--out", "found"]) == 0
    assert PatchIndex.open(tmp_path / "index").manifest.data == f"folder:{tmp_path / 'folder'}?limit=5"
    with pytest.raises(
        UserError, match=r"no region of the index has a class; for images, --label needs .* class labels"
    ):
        main(["search", "../index", "--query", "0", "--label", "cat", "--out", "found"])


@pytest.fixture(scope="module")
def contexts(encoder_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "contexts"
    argv = [
        "--encoder",
        str(encoder_file),
        "--data",
        SPEC,
        "--out",
        str(folder),
        "--split",
        "test",
        "--mode",
        "contexts",
    ]
    assert main(["index", *argv]) == 0
    return folder


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "test 7.png"
    Image.fromarray(open_dataset(SPEC).split("test")[7][0].permute(1, 2, 0).numpy()).save(path)
    return path


def test_a_hole_finds_its_own_surroundings(contexts: Path, picture: Path, tmp_path: Path) -> None:
    argv = ["--image", str(picture), "--hole", "8", "8", "16", "16", "-k", "4", "--out", str(tmp_path)]
    assert main(["search", str(contexts), *argv]) == 0
    answer = json.loads((tmp_path / "neighbours.json").read_text())
    assert [found["rank"] for found in answer["neighbours"]] == [1, 2, 3, 4]
    assert answer["neighbours"][0]["image"] == 7
    assert answer["neighbours"][0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert answer["query"]["hidden"]
    with Image.open(tmp_path / "neighbours.png") as sheet:
        assert sheet.width > 4 * 112


def test_several_pictures_are_asked_with_at_once(
    contexts: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.asarray(Image.open(picture))
    large = tmp_path / "large.png"  # rotated and larger: the same box is another part
    Image.fromarray(np.rot90(pixels.repeat(2, axis=0).repeat(2, axis=1)).copy()).save(large)
    files = [picture, large, picture]
    asked = ["--hole", "4", "8", "16", "16", "-k", "4", "--out"]
    alone = []
    for number, file in enumerate(files):
        assert main(["search", str(contexts), "--image", str(file), *asked, str(tmp_path / str(number))]) == 0
        alone.append(json.loads((tmp_path / str(number) / "neighbours.json").read_text()))
    searches = []
    search = PatchIndex.search

    def counting(self: PatchIndex, queries: np.ndarray, *given: object, **named: object) -> object:
        searches.append(len(queries))
        return search(self, queries, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(PatchIndex, "search", counting)
    together = tmp_path / "together"
    assert main(["search", str(contexts), "--image", *map(str, files), *asked, str(together)]) == 0
    assert searches == [3]
    assert "the nearest 4 of 16 contexts to each of 3 pictures" in capsys.readouterr().out
    answers = json.loads((together / "neighbours.json").read_text())
    for answer, one in zip(answers, alone, strict=True):
        assert answer["query"] == one["query"]
        for found, expected in zip(answer["neighbours"], one["neighbours"], strict=True):
            assert found.pop("similarity") == pytest.approx(expected.pop("similarity"), abs=1e-5)
            assert found == expected
    assert answers[0]["neighbours"] == answers[2]["neighbours"] != answers[1]["neighbours"]
    assert answers[0]["query"]["box"] == [0.125, 0.25, 0.5, 0.5]
    assert answers[1]["query"]["box"] == [0.0625, 0.125, 0.25, 0.25]
    with Image.open(together / "neighbours.png") as sheet, Image.open(tmp_path / "0" / "neighbours.png") as one_row:
        assert sheet.height - 6 == 3 * (one_row.height - 6)  # the rest is a gap
        assert sheet.width == one_row.width


def test_a_hole_in_a_whole_picture_is_asked_with_all_that_surrounds_it(encoder_file: Path, tmp_path: Path) -> None:
    argv = ["--encoder", str(encoder_file), "--data", SPEC, "--split", "test", "--mode", "images"]
    assert main(["index", *argv, "--out", str(tmp_path / "images")]) == 0
    searchable = Searchable.open(tmp_path / "images")
    pictures = torch.stack([searchable.data[i][0] for i in range(16)])
    boxes = [(i % 4 / 8, i // 4 / 8, 0.25, 0.5) for i in range(16)]
    cosines, rows = searchable.search_many(list(pictures), boxes, 16, hidden=True)
    colour = torch.tensor(MEAN_COLOUR) * 255
    holed = pictures.clone()
    for picture, (x, y, w, h) in zip(holed, boxes, strict=True):
        rows_of, columns = slice(int(32 * y), int(32 * (y + h))), slice(int(32 * x), int(32 * (x + w)))
        picture[:, rows_of, columns] = colour.round().byte()[:, None, None]
    with torch.inference_mode():
        queries, found = (searchable.encoder.embed(each).double() for each in (holed, pictures))
    expected = torch.nn.functional.cosine_similarity(queries[:, None], found[None], dim=2).numpy()
    np.testing.assert_allclose(cosines, -np.sort(-expected, axis=1), atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(expected, rows, axis=1), cosines, atol=1e-5)
    secret = pictures.clone()
    for picture, (x, y, w, h) in zip(secret, boxes, strict=True):
        picture[:, int(32 * y) : int(32 * (y + h)), int(32 * x) : int(32 * (x + w))] = 255
    np.testing.assert_array_equal(searchable.search_many(list(secret), boxes, 16, hidden=True)[1], rows)


def test_an_index_of_patches_takes_no_holes(encoder_file: Path, tmp_path: Path) -> None:
    argv = ["--encoder", str(encoder_file), "--data", SPEC, "--split", "test", "--out", str(tmp_path / "grid")]
    assert main(["index", *argv]) == 0
    searchable = Searchable.open(tmp_path / "grid")
    with pytest.raises(UserError, match="this index holds grid; a hole needs an index of contexts or images"):
        searchable.search(searchable.data[0][0], (0.25, 0.25, 0.5, 0.5), hidden=True)


def test_a_picture_of_the_index_is_not_its_own_neighbour(contexts: Path, tmp_path: Path) -> None:
    assert main(["search", str(contexts), "--query", "7", "--out", str(tmp_path)]) == 0
    answer = json.loads((tmp_path / "neighbours.json").read_text())
    assert len(answer["neighbours"]) == 10
    assert 7 not in {found["image"] for found in answer["neighbours"]}


def test_neighbours_of_a_class_alone_by_the_command_and_in_three_lines(contexts: Path, tmp_path: Path) -> None:
    assert main(["search", str(contexts), "--query", "7", "-k", "16", "--out", str(tmp_path)]) == 0
    every = [found["label"] for found in json.loads((tmp_path / "neighbours.json").read_text())["neighbours"]]
    name = next(label for label in reversed(every) if label is not None)
    assert 0 < every.count(name) < len(every)
    argv = ["--query", "7", "-k", "16", "--label", name, "--out", str(tmp_path)]
    assert main(["search", str(contexts), *argv]) == 0
    of_class = json.loads((tmp_path / "neighbours.json").read_text())["neighbours"]
    assert [found["label"] for found in of_class] == [name] * every.count(name)
    searchable = Searchable.open(contexts)
    centre = (0.25, 0.25, 0.5, 0.5)
    picture = searchable.data[7][0]
    cosines, rows = searchable.search(picture, centre, 16, hidden=True, without_image=7, label=name)
    np.testing.assert_allclose(cosines, [found["similarity"] for found in of_class], atol=1e-6)
    assert searchable.index.table["image"][rows].tolist() == [found["image"] for found in of_class]


def test_a_box_finds_its_own_patch(encoder_file: Path, picture: Path, tmp_path: Path) -> None:
    index = str(tmp_path / "grid")
    argv = [
        "--encoder",
        str(encoder_file),
        "--data",
        SPEC,
        "--out",
        index,
        "--split",
        "test",
        "--stage",
        "conv3",
        "--limit",
        "16",
    ]
    assert main(["index", *argv]) == 0
    argv = ["--image", str(picture), "--box", "16", "0", "16", "16", "--out", str(tmp_path)]
    assert main(["search", index, *argv]) == 0
    best = json.loads((tmp_path / "neighbours.json").read_text())["neighbours"][0]
    assert (best["image"], best["box"]) == (7, [0.5, 0, 0.5, 0.5])


def test_a_whole_folder_is_indexed_and_every_neighbour_named(encoder_file: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for number in range(12):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(photographs / f"{number}.png")
    argv = ["--encoder", str(encoder_file), "--data", f"folder:{photographs}", "--mode", "images"]
    assert main(["index", *argv, "--out", str(tmp_path / "index")]) == 0
    argv = ["--image", str(photographs / "5.png"), "-k", "12", "--out", str(tmp_path)]
    assert main(["search", str(tmp_path / "index"), *argv]) == 0
    found = json.loads((tmp_path / "neighbours.json").read_text())["neighbours"]
    assert {Path(each["file"]).name for each in found} == {f"{number}.png" for number in range(12)}
    assert Path(found[0]["file"]).name == "5.png"


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["--image", "PICTURE", "--hole", "20", "8", "16", "16"], "not within the picture, which is 32×32"),
        (["--image", "PICTURE", "--hole", "8", "8", "0", "16"], "not within"),
        (["--image", "PICTURE", "--hole", "nan", "8", "8", "16"], "not within"),
        (["--image", "PICTURE", "--box", "8", "8", "16", "16"], "holds contexts"),
        (["--image", "nowhere.png"], "nowhere.png"),
        (["--image", "PICTURE", "nowhere.png"], "nowhere.png"),
        (
            ["--image", "PICTURE", "PICTURE", "--hole", "20", "8", "16", "16"],
            r"not within the picture .*test 7.png, ",
        ),
        (["--image"], "either --image"),
        (["--image", "PICTURE", "--query", "1"], "either --image"),
        ([], "either --image"),
        (["--query", "16"], "allowed is from 0 to 15"),
        (["--query", "1", "-k", "0"], "k is 0"),
        (["--query", "1", "--label", "unicorn"], "no region of the index has class 'unicorn'"),
        (["--query", "1", "--data", "scenes?train=40&val=12&test=16&size=32&seed=1"], "differs from the indexed one"),
        (["--query", "1", "--encoder", "OTHER"], "another"),
    ],
)
def test_a_question_that_cannot_be_asked_is_one_line(
    contexts: Path, picture: Path, tmp_path: Path, argv: list[str], word: str
) -> None:
    other = tmp_path / "other.safetensors"
    save_encoder(make_encoder(seed=5), other, {})
    given = [{"PICTURE": str(picture), "OTHER": str(other)}.get(arg, arg) for arg in argv]
    out = tmp_path / "out"
    with pytest.raises(UserError, match=word) as caught:
        main(["search", str(contexts), *given, "--out", str(out)])
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_a_picture_that_cannot_be_decoded_is_named(
    encoder_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRETEXT_PACK_GB", "0")  # a pack would leave it out
    folder = photographs(tmp_path / "photos", range(4))
    (folder / "002.png").write_bytes(b"no picture")
    argv = ["--encoder", str(encoder_file), "--data", f"folder:{folder}", "--mode", "images"]
    assert main(["index", *argv, "--out", str(tmp_path / "index")]) == 0
    data = Searchable.open(tmp_path / "index").data
    torn, sound = (next(i for i in range(4) if str(file_of(data, i)).endswith(name)) for name in ("002.png", "001.png"))
    asked = ["search", str(tmp_path / "index"), "--out", str(tmp_path / "out"), "--query"]
    with pytest.raises(UserError, match=rf"--query {torn}: .*002\.png: not a picture .*; give another number"):
        main([*asked, str(torn)])

    def gone(*given: object) -> None:
        raise BadImage("003.png: No such file or directory")

    for module, word in (("search_command", f"--query {sound}: "), ("sheets", "photos: ")):
        with monkeypatch.context() as patch:
            patch.setattr(f"retrieval.{module}.original", gone)
            with pytest.raises(UserError, match=rf"{word}003\.png: No such file .*; .*mend the file"):
                main([*asked, str(sound)])
    assert not (tmp_path / "out").exists()


def test_a_missing_or_empty_folder_is_named(encoder_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        main(["search", str(tmp_path / "nowhere"), "--query", "0"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is not an index"):
        main(["search", str(tmp_path / "empty"), "--query", "0"])
    out = tmp_path / "out"
    with pytest.raises(UserError, match="empty"):
        data = f"folder:{tmp_path / 'empty'}"
        main(["index", "--encoder", str(encoder_file), "--data", data, "--out", str(out)])
    assert not out.exists()
    with pytest.raises(UserError, match="did you mean 'search'"):
        main(["serach"])


@pytest.mark.parametrize(("mode", "word"), [("objects", "needs boxes"), ("grid", "no stage 'conv9'")])
def test_an_index_that_cannot_be_made_is_one_line(encoder_file: Path, tmp_path: Path, mode: str, word: str) -> None:
    data = f"folder:{class_folders(tmp_path / 'photos', 10)}"
    stage = [] if mode == "objects" else ["--stage", "conv9"]
    argv = ["--encoder", str(encoder_file), "--data", data, "--mode", mode, *stage]
    with pytest.raises(UserError, match=word):
        main(["index", *argv, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_real_photographs_find_themselves(encoder_file: Path, tmp_path: Path) -> None:
    root = os.environ.get("PRETEXT_TEST_DATA")
    if not root:
        pytest.skip("PRETEXT_TEST_DATA is not set")
    spec = f"folder:{root}/tiny-imagenet-20?limit=12"
    photo = tmp_path / "photo.png"
    Image.fromarray(open_dataset(spec).split("test")[5][0].permute(1, 2, 0).numpy()).save(photo)
    index = str(tmp_path / "index")
    argv = ["--encoder", str(encoder_file), "--data", spec, "--split", "test", "--mode", "contexts"]
    assert main(["index", *argv, "--out", index]) == 0
    assert main(["search", index, "--image", str(photo), "--out", str(tmp_path)]) == 0
    best = json.loads((tmp_path / "neighbours.json").read_text())["neighbours"][0]
    assert best["image"] == 5
    assert best["similarity"] == pytest.approx(1, abs=1e-5)


def test_every_public_name_can_be_imported() -> None:
    for name in retrieval.__all__:
        assert getattr(retrieval, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        retrieval.nothing  # noqa: B018
