"""The index on disk.

building  build an index from a split; resume an interrupted build; add new pictures
blocks    the working folder of a build: one file per block of vectors, and the lock
factory   FAISS: index types, training, search parameters
index     an opened index: patch table, vectors, nearest-neighbour search
manifest  what an index was made from, and the format check
"""
