"""Train torchvision's Faster R-CNN for one step on an encoder."""

import torch
from torchvision.models.detection import FasterRCNN

from pretext import load_encoder

backbone = load_encoder("encoder.safetensors").as_torchvision_backbone(fpn=64)
detector = FasterRCNN(backbone, num_classes=3, image_mean=(0, 0, 0), image_std=(1, 1, 1), min_size=128)
targets = [{"boxes": torch.tensor([[10.0, 20.0, 90.0, 80.0]]), "labels": torch.tensor([1])}]
losses = detector([torch.rand(3, 128, 160)], targets)
sum(losses.values()).backward()
print({name: round(loss.item(), 3) for name, loss in losses.items()})
