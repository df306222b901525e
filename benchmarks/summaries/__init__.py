"""What the numbers say: means and intervals over seeds, tests, costs.

verdict       summaries over seeds: means, intervals, differences from random weights
intervals     intervals, tests, corrections, power
ranks         mean ranks of rows over probes
label_curves  how many labels a share is, what more bring, what a row is worth in labels
costs         what pretraining a row cost: images, operations, seconds, memory
"""
