"""Vectors of a data set's pictures as a file that other tools read, and a map of them: `python -m pretext embed`.

command     the command line
encoding    encode a batch of pictures, pool a stage's map
parts       the vectors in parts beside the output: a killed command continues after its last part
files       write the parts as one .parquet or .npz file
projection  draw some of the pictures, and project their vectors onto two dimensions
map_page    the map as one HTML page; page/ holds its style and script
"""
