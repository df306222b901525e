"""What a results folder holds, and reading and writing it.

results      measurements, failures, plan, CSV and Parquet
environment  OUT/environment.json: hardware and package versions
locks        one lock per cell, for several run_all on one folder
"""
