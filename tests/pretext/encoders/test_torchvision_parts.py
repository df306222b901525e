"""An encoder inside torchvision's Faster R-CNN and DeepLabV3: a training step of each, and what is normalised where."""

from __future__ import annotations

import pytest
import torch
from module_samples import Tokens
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.models.segmentation.deeplabv3 import DeepLabHead, DeepLabV3
from torchvision.models.segmentation.fcn import FCNHead
from torchvision.ops import MultiScaleRoIAlign

from pretext.encoders import Encoder, build_encoder
from pretext.system.errors import UserError

PLAIN = {"image_mean": (0, 0, 0), "image_std": (1, 1, 1), "min_size": 96, "max_size": 160}
TARGETS = [{"boxes": torch.tensor([[8.0, 8.0, 40.0, 50.0]]), "labels": torch.tensor([1])}] * 2


def small():
    return build_encoder("alexnet?width=0.125&stem_stride=2", input_size=64, seed=0)


def pictures(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, *size, generator=generator) for size in sizes]


def gradients(encoder):
    return [parameter.grad is not None and bool(parameter.grad.abs().sum() > 0) for parameter in encoder.parameters()]


@pytest.mark.parametrize("fpn", [32, None])
def test_a_step_of_faster_rcnn_trains_the_encoder(fpn):
    torch.manual_seed(0)
    encoder = small()
    backbone = encoder.as_torchvision_backbone(fpn=fpn)
    single = {
        "rpn_anchor_generator": AnchorGenerator(((16, 32, 64),), ((0.5, 1.0, 2.0),)),
        "box_roi_pool": MultiScaleRoIAlign(["out"], output_size=5, sampling_ratio=1),
    }
    detector = FasterRCNN(backbone, num_classes=3, box_batch_size_per_image=8, **PLAIN, **({} if fpn else single))
    losses = detector(pictures((64, 96), (80, 64)), TARGETS)
    assert set(losses) == {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert all(gradients(encoder))
    assert len(detector.eval()(pictures((64, 96)))) == 1


def test_the_maps_of_the_pyramid_are_those_of_the_deepest_stages_of_four_strides():
    encoder = small().eval()
    backbone = encoder.as_torchvision_backbone(fpn=16)
    maps = backbone(torch.stack(pictures((64, 96))))
    assert backbone.out_channels == 16
    assert {name: tuple(found.shape[1:]) for name, found in maps.items()} == {
        "0": (16, 32, 48),  # conv1, stride 2
        "1": (16, 16, 24),
        "2": (16, 8, 12),  # conv5: the deepest of stride 8
        "3": (16, 4, 6),  # pool5
        "pool": (16, 2, 3),
    }
    read = [block.in_channels for block in (inner[0] for inner in backbone.fpn.inner_blocks)]
    assert read == [16, 32, 32, 32] == [encoder.stages[i].channels for i in (0, 1, 4, 5)]


def test_a_step_of_deeplab_trains_the_encoder_and_an_auxiliary_classifier():
    torch.manual_seed(0)
    encoder = small()
    backbone = encoder.as_torchvision_backbone(stages=["conv3", "conv5"])
    network = DeepLabV3(backbone, DeepLabHead(32, 4), FCNHead(48, 4))
    images = torch.stack(pictures((64, 64), (64, 64)))
    scores = network(images)
    assert scores["out"].shape == scores["aux"].shape == (2, 4, 64, 64)
    truth = torch.randint(0, 4, (2, 64, 64), generator=torch.Generator().manual_seed(1))
    loss = sum(torch.nn.functional.cross_entropy(each, truth) for each in scores.values())
    assert torch.isfinite(loss)
    loss.backward()
    assert all(gradients(encoder))
    with torch.no_grad():
        encoder.eval()
        maps = encoder(images)
        named = backbone(images)
    assert torch.equal(named["out"], maps[4]) and torch.equal(named["aux"], maps[2]) and backbone.out_channels == 32


def test_the_encoder_normalises_and_a_detector_that_does_too_is_refused():
    """The maps inside the detector are those of the encoder for the same picture in [0, 1]."""
    encoder = small().eval()
    backbone = encoder.as_torchvision_backbone(fpn=16)
    (picture,) = pictures((96, 128))
    seen = []
    encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        FasterRCNN(backbone, num_classes=3, **PLAIN).eval()([picture])
    assert torch.equal(seen[-1][0], picture)  # resized to itself, and not normalised
    with pytest.raises(UserError, match=r"not normalised.*image_mean=\(0, 0, 0\), image_std=\(1, 1, 1\)"):
        FasterRCNN(encoder.as_torchvision_backbone(fpn=16), num_classes=3, min_size=96).eval()([picture])


def test_an_encoder_of_one_size_is_refused_at_the_first_batch():
    encoder = Encoder.wrap(Tokens(), input_size=32)
    backbone = encoder.as_torchvision_backbone()
    assert backbone(torch.rand(2, 3, 32, 32))["out"].shape == (2, 16, 4, 4)
    with pytest.raises(UserError, match=r"cannot read images of 96×128 px, the size of this .*give images of 32×32"):
        FasterRCNN(encoder.as_torchvision_backbone(fpn=8), num_classes=3, **PLAIN).eval()(pictures((96, 128)))


def test_stages_are_checked():
    with pytest.raises(UserError, match="has no stage 'conv9'; did you mean 'conv"):
        small().as_torchvision_backbone(stages=["conv9"])
    with pytest.raises(UserError, match="3 stages are given; without fpn give one"):
        small().as_torchvision_backbone(stages=["conv1", "conv2", "conv3"])
