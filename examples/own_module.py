"""Train a network of one's own by rotation."""

from pathlib import Path

from torchvision.models import resnet18

from pretext import Encoder, TrainConfig, load_encoder, open_dataset, train

encoder = Encoder.wrap(resnet18(), ["layer2", "layer4"], input_size=64)
settings = TrainConfig(steps=2, batch_size=8)
file = train("rotation", encoder, open_dataset("folder:photos"), settings, Path("runs/own"), image_size=64)
print(load_encoder(file, module=resnet18()).stages)
