"""Keep an encoder at every fifth of the budget; draw their k-NN accuracy with 95 % intervals over the test pictures."""

from pathlib import Path

import pandas as pd

from benchmarks.summaries.intervals import interval
from downstream import Knn
from pretext import TrainConfig, load_encoder, open_dataset, train

data, out, rows = open_dataset("folder:photos"), Path("runs/kept"), []
train("rotation", "alexnet?width=0.25", data, TrainConfig(steps=20, batch_size=16, keep="20%"), out, image_size=128)
for file in sorted((out / "kept").iterdir()):
    (top1,) = (score for score in Knn().evaluate(load_encoder(file), data) if score.headline)
    found = interval(top1.items[None])  # one seed × the test pictures; None where all have the same result
    rows.append((int(file.stem.removeprefix("step-")), found.mean, found.low, found.high))
print(table := pd.DataFrame(rows, columns=["step", "top1", "low", "high"]).set_index("step").astype(float))
table.top1.plot(yerr=table.top1 - table.low, ylabel="k-NN top-1 %", marker="o").figure.savefig("kept.svg")
