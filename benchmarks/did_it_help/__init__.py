"""Did pretraining help on these pictures: a comparison of a few rows, answered in sentences.

command     the command and its flags; the plan is one of `run_all`
recipe      rows and probes of the comparison
answer      the answer in sentences and as a table
neighbours  a sheet of nearest neighbours, for pictures without labels
"""
