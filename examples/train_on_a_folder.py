"""Train an encoder on a folder of photographs, without labels."""

from pathlib import Path

from pretext import TrainConfig, load_encoder, open_dataset, train

photos = open_dataset("folder:photos")
settings = TrainConfig(steps=20, batch_size=16)  # a few steps for a first look; thousands for features
file = train("simclr", "alexnet?width=0.25&stem_stride=2", photos, settings, Path("runs/mine"), image_size=64)
print(file, load_encoder(file).record["images_seen"], "images seen")
