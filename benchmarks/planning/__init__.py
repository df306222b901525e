"""What a comparison computes: its rows, its probes, and every cell of rows × probes × seeds.

rows       one row: the task that trains its encoder, or where the encoder comes from
row_flags  the rows that flags select: tasks with settings of their own, and encoders from elsewhere
probes     every probe by name
recipes    the profiles (smoke, laptop, tasks, workstation, paper): rows, probes, budgets
adjusting  what flags change of a profile: budget, precision, probes
cells      one cell, and the hash of every setting that its value depends on
plan       all cells of a comparison, the missing ones, and the plan in a few lines
making     make it, from rows, probes and data sets
"""
