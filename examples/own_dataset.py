"""Train on a torch data set of one's own."""

from pathlib import Path

from torchvision.datasets import FakeData

from pretext import TrainConfig, train

pictures = FakeData(size=60, image_size=(3, 48, 48), num_classes=3)  # any Dataset whose items are pictures
encoder = "alexnet?width=0.25&stem_stride=2"
settings = TrainConfig(steps=5, batch_size=16)
print(train("context_encoder", encoder, pictures, settings, Path("runs/data"), image_size=32))
