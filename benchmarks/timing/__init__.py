"""Measure speed beside other libraries; not part of the wheel.

speed       the command: python benchmarks/timing/speed.py
many_files  opening many small pictures, as files and in tar shards: python benchmarks/timing/many_files.py
measuring   its options and its tables
tasks       the training loop of a pretext task beside a minimal loop
steps       a bare training step, the speed of many, and a profile of them
linear      the solver of the linear probe beside scikit-learn
peers       training steps beside plain PyTorch and lightly
loading     decoding and views beside torchvision's and lightly's loaders
quality     features after so many minutes, by this suite and by lightly: python benchmarks/timing/quality.py
growing     peak memory as the number of pictures grows: python benchmarks/timing/growing.py
search      building and searching an index beside FAISS and scikit-learn
"""
