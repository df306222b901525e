"""Judge an encoder and its random initialisation; the scores as a DataFrame."""

import pandas as pd

from downstream import Knn, Linear
from pretext import build_encoder, load_encoder, open_dataset

data, trained = open_dataset("folder:photos"), load_encoder("encoder.safetensors")
encoders = {"mine": trained, "random": build_encoder(trained.spec, input_size=trained.input_size, seed=0)}
table = []
for row, encoder in encoders.items():
    for probe in (Knn(), Linear()):
        table += [{"row": row, "probe": type(probe).__name__, **vars(score)} for score in probe.evaluate(encoder, data)]
print(pd.DataFrame(table)[["row", "probe", "stage", "metric", "value", "chance", "n"]])
