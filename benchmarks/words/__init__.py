"""Names, order and words that tables, pages, the terminal and commands share.

columns   names of the columns: probes, or with several data sets each probe on each set
naming    the names that people read, of rows, probes and metrics
ordering  the fixed order of rows and columns in tables, and the groups of rows
wording   sentences, lists and marks
"""
