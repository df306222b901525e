"""Print how alike three pictures are to an encoder."""

from pathlib import Path

from PIL import Image
from torch.nn.functional import normalize

from pretext import load_encoder

encoder = load_encoder("encoder.safetensors")
pictures = [Image.open(file) for file in sorted(Path("photos").rglob("*.png"))[:3]]
features = normalize(encoder.embed(pictures))
print(features @ features.T)
