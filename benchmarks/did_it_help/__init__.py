"""Did pretraining help on these pictures: a comparison of a few rows, answered in sentences.

command     the command and its flags; the plan is one of `run_all`
recipe      rows and probes of the comparison
fewer       a row that learns from a quarter of the pictures
more        what more labels and more pictures would bring, in sentences
answer      the answer in sentences and as a table
neighbours  a sheet of nearest neighbours, for pictures without labels
"""
