"""Weights from elsewhere: each project's layout by its own names, value by value; the whole encoder or a clear line."""

from __future__ import annotations

import pytest
import torch
from comparison_samples import SPEC, Constant, recipe
from safetensors.torch import save_file
from torch import nn

import downstream.__main__ as downstream_command
import retrieval.__main__ as retrieval_command
from benchmarks.cells import encoder_cell
from benchmarks.computing import compute
from benchmarks.options import asked_encoders
from benchmarks.plan import make_plan, open_data
from benchmarks.results import encoder_path
from pretext.datasets import open_dataset
from pretext.encoders import build_encoder, load_encoder, read_record, save_encoder
from pretext.encoders.foreign import loaded_line
from pretext.system.errors import UserError
from pretext.training.config import TrainConfig
from pretext.training.loop import train
from pretext.training.run_folder import load_task

timm = pytest.importorskip("timm", reason="timm is not installed")
models = pytest.importorskip("torchvision").models
BLOCK = models.resnet.BasicBlock
LAST = ("layer4.0.conv2", "layer4.0.bn2")
VIT = "timm:vit_tiny_patch16_224"
DATA = "scenes?size=32&train=8&val=4&test=4"
MEAN, STD = (torch.tensor(x).view(1, 3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


@timm.models.register_model
def resnet10_of_test(pretrained=False, **options):
    """timm's ResNet-18 of four blocks, which is torchvision's `ResNet(BasicBlock, [1, 1, 1, 1])`."""
    blocks = {"block": timm.models.resnet.BasicBlock, "layers": (1, 1, 1, 1)}
    return timm.models.resnet._create_resnet("resnet18", pretrained, **(blocks | options))


def resnet10():
    return models.ResNet(BLOCK, [1, 1, 1, 1])


def alive(make, seed):
    """Return a model of which no two tensors are alike, batch statistics neither."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                value.add_(0.02 * torch.rand_like(value) if name.endswith("var") else 0.02 * torch.randn_like(value))
    return model.eval()


@pytest.fixture(scope="module")
def resnet():
    return alive(resnet10, 1)


@pytest.fixture(scope="module")
def other():
    return alive(resnet10, 2)


def tiny_vit():
    return models.VisionTransformer(32, 16, 12, 3, 192, 768)


@pytest.fixture(scope="module")
def vit():
    return alive(tiny_vit, 3)


@pytest.fixture(scope="module")
def timm_vit():
    return alive(lambda: timm.create_model("vit_tiny_patch16_224", img_size=32), 4)


def under(prefix, tensors, leave_out="fc."):
    return {prefix + name: value for name, value in tensors.items() if not name.startswith(leave_out)}


def linear(name, *, out=4, n=4):
    return {f"{name}.weight": torch.rand(out, n), f"{name}.bias": torch.rand(out)}


def numbered(model):
    """Return the names of `nn.Sequential(*list(model.children())[:-1])`."""
    return nn.Sequential(*list(model.children())[:-1]).state_dict()


def moco_v2(ours, other):
    """Its training script's checkpoint, the optimiser in it."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.rand(3))], lr=0.1, momentum=0.9)
    optimizer.param_groups[0]["params"][0].grad = torch.rand(3)
    optimizer.step()
    heads = linear("module.encoder_q.fc.0") | linear("module.encoder_q.fc.2") | linear("module.encoder_k.fc.0")
    queue = {"module.queue": torch.rand(4, 8), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    q, k = under("module.encoder_q.", ours.state_dict()), under("module.encoder_k.", other.state_dict())
    return {"epoch": 3, "arch": "resnet10", "state_dict": k | q | heads | queue, "optimizer": optimizer.state_dict()}


def moco_v3(ours, other):
    tensors = under("module.base_encoder.", ours.state_dict()) | under("module.momentum_encoder.", other.state_dict())
    return {"state_dict": tensors | linear("module.base_encoder.fc.0") | linear("module.predictor.0")}


def solo_learn(ours, other):
    tensors = under("backbone.", ours.state_dict()) | under("momentum_backbone.", other.state_dict())
    heads = linear("projector.0") | linear("momentum_projector.0") | linear("classifier") | linear("predictor.0")
    return {"state_dict": tensors | heads, "epoch": 1, "global_step": 10}


def older_solo_learn(ours, other):
    tensors = under("encoder.", ours.state_dict()) | under("momentum_encoder.", other.state_dict())
    return {"state_dict": tensors | linear("projector.0") | linear("classifier")}


def vissl(ours, other):
    trunk = under("_feature_blocks.", ours.state_dict())
    momentum = under("momentum_teacher.trunk._feature_blocks.", other.state_dict())
    return {
        "classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": linear("0.clf.0")}}, "loss": momentum}
    }


def lightly(ours, other):
    tensors = under("backbone.", numbered(ours)) | under("backbone_momentum.", numbered(other))
    heads = linear("projection_head.layers.0") | linear("projection_head_momentum.layers.0") | linear("fc")
    return {"state_dict": tensors | heads}


LAYOUTS = {
    "torchvision": (lambda a, b: a.state_dict(), ""),
    "torchvision, without counters": (
        lambda a, b: {name: value for name, value in a.state_dict().items() if not name.endswith("tracked")},
        "",
    ),
    "parallel": (lambda a, b: under("module.", a.state_dict()), "module."),
    "moco v2": (moco_v2, "state_dict.module.encoder_q."),
    "moco v3": (moco_v3, "state_dict.module.base_encoder."),
    "simsiam": (
        lambda a, b: {"state_dict": under("module.encoder.", a.state_dict()) | linear("module.encoder.fc.6")},
        "state_dict.module.encoder.",
    ),
    "swav": (
        lambda a, b: (
            under("module.", a.state_dict())
            | linear("module.projection_head.0")
            | {"module.prototypes.weight": torch.rand(3, 4)}
        ),
        "module.",
    ),
    "barlow twins": (
        lambda a, b: {"model": under("module.backbone.", a.state_dict()) | linear("module.projector.0")},
        "model.module.backbone.",
    ),
    "dino": (
        lambda a, b: {
            "student": under("module.backbone.", b.state_dict()) | linear("module.head.mlp.0"),
            "teacher": under("backbone.", a.state_dict()) | linear("head.mlp.0"),
        },
        "teacher.backbone.",
    ),
    "solo-learn": (solo_learn, "state_dict.backbone."),
    "older solo-learn": (older_solo_learn, "state_dict.encoder."),
    "vissl": (vissl, "classy_state_dict.base_model.model.trunk._feature_blocks."),
    "vissl, to evaluate": (
        lambda a, b: {"model": under("trunk.base_model._feature_blocks.", a.state_dict()) | linear("heads.0.clf")},
        "model.trunk.base_model._feature_blocks.",
    ),
    "lightly": (lightly, "state_dict.backbone."),
    "lightly's DINO": (
        lambda a, b: under("student_backbone.", numbered(b)) | under("teacher_backbone.", numbered(a)),
        "teacher_backbone.",
    ),
    "children by number": (lambda a, b: numbered(a), ""),
}


def resnet_maps(model, images):
    x = model.relu(model.bn1(model.conv1((images - MEAN) / STD)))
    maps = [x]
    x = model.maxpool(x)
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        maps.append(x := layer(x))
    return maps


def saved(found, tmp_path, name="weights.pth"):
    torch.save(found, tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_a_resnet_is_the_one_that_was_trained(resnet, other, tmp_path, layout):
    make, prefix = LAYOUTS[layout]
    encoder = load_encoder(f"timm:resnet10_of_test?weights={saved(make(resnet, other), tmp_path)}", input_size=64)
    images = torch.rand(2, 3, 64, 64)
    for found, expected in zip(encoder(images), resnet_maps(resnet, images), strict=True):
        torch.testing.assert_close(found, expected)
    about = encoder.record["weights"]
    assert about["prefix"] == prefix and about["left_random"] == []
    assert about["loaded"] == about["needed"] == 60  # 12 convolutions, and 12 normalisations of 4 tensors
    beside = {"moco v2": 4, "dino": 2, "lightly": 4, "vissl": 2}
    if layout in beside:
        assert len(about["skipped"]) == beside[layout], about["skipped"]


def vit_tokens(model, images):
    x = model._process_input((images - MEAN) / STD)
    x = torch.cat([model.class_token.expand(len(x), -1, -1), x], dim=1) + model.encoder.pos_embedding
    tokens = []
    for block in model.encoder.layers:
        tokens.append(x := block(x))
    return tokens


def same_maps(encoder, tokens, side=2):
    indices = [int(stage.name.rsplit("_", 1)[1]) for stage in encoder.stages]
    assert len(set(indices)) == len(indices) > 1

    def check(images):
        with torch.no_grad():
            for found, expected in zip(encoder(images), [tokens(images)[i] for i in indices], strict=True):
                torch.testing.assert_close(found.flatten(2).mT, expected[:, -side * side :], rtol=1e-4, atol=1e-4)

    return check


def older(tensors):
    """Return torchvision's names of before its version 0.13."""
    return {
        name.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): value
        for name, value in tensors.items()
    }


@pytest.mark.parametrize(
    ("layout", "make"),
    [
        ("torchvision's ViT", lambda tensors: tensors),
        ("torchvision's older ViT", older),
        (
            "torchvision's ViT",
            lambda tensors: {"state_dict": under("backbone.vit.", tensors) | linear("projection_head.0")},
        ),
    ],
)
def test_torchvisions_transformer_is_the_one_that_was_trained(vit, tmp_path, layout, make):
    path = saved(make(vit.state_dict()), tmp_path)
    encoder = load_encoder(f"{VIT}?weights={path}&normalise=imagenet", input_size=32)
    assert encoder.record["weights"]["layout"] == layout and not encoder.record["weights"]["left_random"]
    same_maps(encoder, lambda images: vit_tokens(vit, images))(torch.rand(2, 3, 32, 32))
    assert encoder.spec == f"{VIT}?normalise=imagenet"
    save_encoder(encoder, tmp_path / "encoder.safetensors", encoder.record)
    again = load_encoder(tmp_path / "encoder.safetensors")
    assert again.mean == pytest.approx((0.485, 0.456, 0.406)) and again.record == encoder.record


def test_weights_that_want_other_pictures_say_so(vit, tmp_path):
    with pytest.raises(UserError, match="normalise=imagenet"):
        load_encoder(f"{VIT}?weights={saved(vit.state_dict(), tmp_path)}", input_size=32)
    assert build_encoder(f"{VIT}?normalise=half", input_size=32, seed=0).mean == (0.5, 0.5, 0.5)


def vissl_vit(tensors):
    names = {"cls_token": "class_token", "pos_embed": "pos_embedding"}
    trunk = {names.get(name, name): value for name, value in under("", tensors, "head.").items()}
    return {"classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": linear("0.clf")}}}}


@pytest.mark.parametrize(
    "make",
    [
        lambda tensors: tensors,
        lambda tensors: {"model": tensors | linear("decoder_blocks.0.mlp.fc1") | {"mask_token": torch.rand(1, 1, 192)}},
        lambda tensors: {
            "state_dict": under("module.base_encoder.", tensors, "head.") | linear("module.base_encoder.head.0")
        },
        lambda tensors: {"state_dict": under("backbone.", tensors, ("head.", "norm."))},  # no map needs the last norm
        vissl_vit,
    ],
    ids=["timm", "mae", "moco v3", "solo-learn", "vissl"],
)
def test_timms_transformer_is_the_one_that_was_trained(timm_vit, tmp_path, make):
    path = saved(make(timm_vit.state_dict()), tmp_path)
    encoder = load_encoder(f"{VIT}?weights={path}&normalise=imagenet", input_size=32)

    def tokens(images):
        return timm_vit.forward_intermediates((images - MEAN) / STD, output_fmt="NLC")[1]

    same_maps(encoder, tokens)(torch.rand(2, 3, 32, 32))


def alexnet_bvlc():
    """VISSL's trunk of that name: Krizhevsky's, in two groups, normalised before it is pooled."""

    def conv(*args, **options):
        return nn.Sequential(nn.Conv2d(*args, **options), nn.ReLU())

    def pool():
        return nn.Sequential(nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75), nn.MaxPool2d(3, 2))

    blocks = [
        conv(3, 96, 11, stride=4), pool(),
        conv(96, 256, 5, padding=2, groups=2), pool(),
        conv(256, 384, 3, padding=1),
        conv(384, 384, 3, padding=1, groups=2),
        conv(384, 256, 3, padding=1, groups=2),
        nn.MaxPool2d(3, 2),
    ]  # fmt: skip
    return nn.Sequential(*blocks)


@torch.no_grad()
def test_the_one_foreign_alexnet_that_is_this_suites(tmp_path):
    model = alive(alexnet_bvlc, 5)
    trunk = under("_feature_blocks.", model.state_dict())
    path = saved({"classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": {}}}}}, tmp_path)
    encoder = load_encoder(f"alexnet?norm=local_response&groups=2&weights={path}", input_size=227)
    images = torch.rand(1, 3, 227, 227)
    maps = [images := (images - MEAN) / STD]
    for block in model:
        maps.append(block(maps[-1]))
    *_, conv3, conv4, conv5, pool5 = encoder(images * STD + MEAN)
    for found, expected in zip((conv3, conv4, conv5, pool5), maps[5:], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert encoder.spec == "alexnet?norm=local_response&groups=2" and len(encoder.record["weights_sha256"]) == 64
    with torch.device("meta"):
        names = under("", models.alexnet().state_dict(), "classifier.")
    theirs = saved({key: torch.zeros(value.shape) for key, value in names.items()}, tmp_path, "torchvision.pth")
    with pytest.raises(
        UserError, match=r"torchvision.pth does not fit alexnet: none of its tensors is there.*features.0"
    ):
        load_encoder(f"alexnet?weights={theirs}")


@pytest.mark.parametrize("spec", ["alexnet?width=0.25&stem_stride=2", "released?width=0.1"])
def test_this_suites_own_encoders_start_from_files_too(tmp_path, spec):
    given = build_encoder(spec, input_size=128, seed=3)
    save_encoder(given, tmp_path / "encoder.safetensors", {})
    encoder = load_encoder(f"{spec}&weights={tmp_path / 'encoder.safetensors'}", input_size=128)
    assert encoder.spec == spec
    assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in given.state_dict().items())
    with pytest.raises(UserError, match="expected"):
        load_encoder(f"{spec.replace('width=0', 'width=1')}&weights={tmp_path / 'encoder.safetensors'}")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (models.resnet34, "extra state_dict.backbone.layer1.2.conv1.weight"),  # has all that ResNet-18 has
        (models.resnet50, "layer1.0.conv1.weight is (64, 64, 1, 1) where (64, 64, 3, 3) is expected"),
        (lambda: nn.Conv2d(3, 64, 7), "none of its tensors is there; it holds state_dict.backbone.weight"),
    ],
)
def test_another_architecture_is_refused_by_name(tmp_path, make, said):
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in make().state_dict().items()}
    tensors = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    path = saved({"state_dict": under("backbone.", tensors)}, tmp_path)
    with pytest.raises(UserError) as caught:
        load_encoder(f"timm:resnet18?weights={path}", input_size=32)
    assert str(caught.value).startswith(f"{path} does not fit timm:resnet18: ") and said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_of_two_equally_good_ones_the_user_says_which(resnet, other, tmp_path):
    path = saved({"first": resnet.state_dict(), "second": other.state_dict()}, tmp_path)
    with pytest.raises(
        UserError, match=r"one under first\. and another under second\.; say which, as in &prefix=second"
    ):
        load_encoder(f"timm:resnet10_of_test?weights={path}", input_size=32)
    path = saved(moco_v2(resnet, other), tmp_path)
    for prefix in ("encoder_k", "encoder_k.", "state_dict.module.encoder_k"):
        encoder = load_encoder(f"timm:resnet10_of_test?weights={path}&prefix={prefix}", input_size=32)
        assert torch.equal(encoder.model.state_dict()["conv1.weight"], other.conv1.weight)
    assert encoder.spec == "timm:resnet10_of_test"
    with pytest.raises(UserError, match="none of its tensors is there under prefix=coder_k"):
        load_encoder(f"timm:resnet10_of_test?weights={path}&prefix=coder_k", input_size=32)


def test_options_of_a_file_need_one():
    for spec in ("timm:resnet10_of_test?prefix=a", "alexnet?allow_partial=true"):
        with pytest.raises(UserError, match="give weights=FILE too"):
            build_encoder(spec, input_size=32, seed=0)


@pytest.fixture
def partial(resnet, tmp_path):
    tensors = resnet.state_dict()
    return saved({name: value for name, value in tensors.items() if not name.startswith(LAST)}, tmp_path)


def test_a_part_is_refused_unless_allowed(resnet, partial):
    spec = f"timm:resnet10_of_test?weights={partial}"
    with pytest.raises(UserError) as caught:
        load_encoder(spec, input_size=32)
    assert "missing layer4.0.conv2.weight; missing layer4.0.bn2.weight" in str(caught.value)
    assert "and 2 more; nothing was loaded; --allow-partial" in str(caught.value)
    encoders = [load_encoder(f"{spec}&allow_partial=true", input_size=32) for _ in range(2)]
    given = resnet.state_dict()
    for name, value in encoders[0].model.state_dict().items():
        assert torch.equal(value, encoders[1].model.state_dict()[name])  # drawn by the seed
        if value.is_floating_point():
            assert torch.equal(value, given[name]) != name.startswith(LAST), name
    about = encoders[0].record["weights"]
    assert len(about["left_random"]) == 5 and about["loaded"] == 55
    assert encoders[0].spec == "timm:resnet10_of_test"
    line = loaded_line(encoders[0], spec)
    assert "55 of 60 tensors loaded" in line and "skipped: fc (2); left random: layer4.0.conv2.weight" in line
    assert "\n" not in line


def test_a_misshapen_stem_and_unknown_parts_are_allowed_as_parts(resnet, tmp_path):
    tensors = resnet.state_dict() | {"conv1.weight": torch.rand(64, 3, 3, 3), "neck.weight": torch.rand(3)}
    spec = f"timm:resnet10_of_test?weights={saved(tensors, tmp_path)}"
    with pytest.raises(
        UserError, match=r"conv1.weight is \(64, 3, 3, 3\) where \(64, 3, 7, 7\) is expected; extra neck.weight"
    ):
        load_encoder(spec, input_size=32)
    about = load_encoder(f"{spec}&allow_partial=true", input_size=32).record["weights"]
    assert about["left_random"] == ["conv1.weight"] and about["skipped"] == {"conv1": 1, "fc": 2, "neck": 1}


def test_judging_prints_what_was_loaded(partial, capsys):
    argv = ["knn", "--encoder", f"timm:resnet10_of_test?weights={partial}", "--data", SPEC, "--image-size", "32"]
    with pytest.raises(UserError, match="--allow-partial"):
        downstream_command.main(argv)
    assert downstream_command.main([*argv, "--allow-partial"]) == 0
    assert "55 of 60 tensors loaded, own names; skipped: fc (2); left random: layer4.0.conv" in capsys.readouterr().out


def test_an_index_finds_its_weights_from_any_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tensors = build_encoder("alexnet?width=0.125", input_size=224, seed=1).state_dict()
    saved({name: value for name, value in tensors.items() if name != "convs.4.0.weight"}, tmp_path)
    argv = ["index", "--encoder", "alexnet?width=0.125&weights=weights.pth", "--data", DATA, "--out", "index"]
    with pytest.raises(UserError, match="--allow-partial"):
        retrieval_command.main(argv)
    assert retrieval_command.main([*argv, "--allow-partial", "--mode", "images", "--limit", "3"]) == 0
    assert "left random: convs.4.0.weight; " in capsys.readouterr().out
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert retrieval_command.main(["search", str(tmp_path / "index"), "--query", "0", "-k", "1"]) == 0


def test_a_row_of_the_comparison_keeps_what_was_loaded(resnet, partial, tmp_path, capsys):
    text = f"mine=timm:resnet10_of_test?weights={partial}"
    with pytest.raises(UserError, match=r"missing layer4\.0"):
        asked_encoders((text,), taken={}, size=32)
    rows = asked_encoders((text,), taken={}, size=32, allow_partial=True)
    assert capsys.readouterr().out.startswith("mine: timm:resnet10_of_test?weights=")
    source, data = open_data(DATA, 32, bad_images="skip", download=False)
    plan = make_plan(recipe(image_size=32), source, data, rows={}, probes={"a": Constant()}, seeds=1, foreign=rows)
    compute(plan.cells[0], tmp_path / "out")
    record = read_record(encoder_path(tmp_path / "out", plan.cells[0].name))["record"]
    assert record["weights"]["loaded"] == 55 and len(record["weights"]["left_random"]) == 5
    assert len(record["weights_sha256"]) == 64


def test_a_rows_identity_is_its_files_and_says_no_path(resnet, other, tmp_path):
    source, _ = open_data(SPEC, 16, bad_images="skip", download=False)
    both, moved = saved(moco_v2(resnet, other), tmp_path), tmp_path / "moved.pth"
    moved.write_bytes(both.read_bytes())

    def name(spec):
        made = encoder_cell("mine", seed=0, data=source, encoder="alexnet", foreign=spec)
        assert str(tmp_path) not in made.settings
        return made.name

    spec = f"timm:resnet10_of_test?weights={both}"
    assert name(spec) == name(f"timm:resnet10_of_test?weights={moved}") == name(f"{spec}&allow_partial=true")
    others = [f"{spec}&prefix=encoder_k", f"timm:resnet34?weights={both}", f"alexnet?weights={both}", "timm:resnet18"]
    assert len({name(one) for one in (spec, *others)}) == 5


def test_a_spec_by_itself_names_its_row(tmp_path):
    save_file(
        build_encoder("alexnet?width=0.25&stem_stride=2", input_size=32, seed=1).state_dict(),
        tmp_path / "own.safetensors",
    )
    spec = f"alexnet?width=0.25&stem_stride=2&weights={tmp_path / 'own.safetensors'}"
    assert asked_encoders((spec,), taken={}, size=64) == {"alexnet?width=0.25&stem_stride=2 own": spec}


def test_training_goes_on_from_a_part_and_remembers_it(partial, tmp_path):
    config = TrainConfig(steps=1, batch_size=4, workers=0, device="cpu")
    spec = f"timm:resnet10_of_test?weights={partial}&allow_partial=true"
    file = train("rotation", spec, open_dataset(DATA), config, tmp_path / "run", image_size=32)
    partial.unlink()
    assert load_task(tmp_path / "run").encoder.spec == load_encoder(file).spec == "timm:resnet10_of_test"
    assert read_record(file)["record"]["started_from"]["loaded"] == 55
    assert loaded_line(load_encoder(file), str(file)).endswith("none skipped, none left random")
