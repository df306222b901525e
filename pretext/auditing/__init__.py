"""Look at every picture of a data set: `python -m pretext data`.

counting       count pictures, objects, classes, sizes and modes; find what cannot be decoded
tables         the audit as text, CSV and JSON
contact_sheet  a sheet of some pictures with their boxes, masks and classes
command        the command line

What is found without looking at pictures, at every opening, is in `pretext.datasets.findings`.
"""
