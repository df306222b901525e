"""Vectors of a data set's pictures.

encoding    encode a batch of pictures, pool a stage's map
"""
