"""What a comparison will cost, before it runs: a short measurement here, and what is assumed beside it.

measuring   a few steps of each row's own training, in a process like that of a worker
costing     the cost of every row: time, operations, memory and disk
telling     the table and the sentences of `run_all.py --dry-run`
"""
