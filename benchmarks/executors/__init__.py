"""Executors compute the cells of a comparison; `schedule` uses only the interface `Executor`.

base       the interface, the outcome of a cell, and how a cell is run
choosing   an executor and its options by name, as `--executor` gives them
local      processes on this machine
slurm      jobs of a SLURM cluster, through submitit
ray        tasks of a Ray cluster
apart      cells on nodes that do not see the results folder
computing  compute one cell: train an encoder, or run a probe on it
schedule   the loop that computes missing cells, and the estimate of the time left
"""
