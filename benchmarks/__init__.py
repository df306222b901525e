"""The comparison: plan the cells, compute them, summarise the results and write the report.

console             every command of the four packages as pretext-bench COMMAND
run_all             the command: options, plan, computation, table and report
options             the flags of run_all, and the plan that they describe
rows                one row: the task that trains its encoder, or where the encoder comes from
row_flags           the rows that flags select: tasks with settings of their own, and encoders from elsewhere
sweeping            a row whose settings are chosen from several on val
commands            the subcommands status, compare, reproduce and clean
sharing             the subcommands merge and leaderboard
probes              every probe by name
recipes             the profiles (smoke, laptop, tasks, workstation, paper): rows, probes, budgets
plan                all cells of a comparison, and the missing ones
superseded          move results of outdated settings out of the tables
columns             names of the columns: probes, or with several data sets each probe on each set
cells               one cell, and the hash of every setting that its value depends on
ordering            the fixed order of rows and columns in tables, and the groups of rows
naming              the names that people read, of rows, probes and metrics
headline            the result in a few plain sentences, for the terminal and the report
schedule            the loop that computes missing cells, and the estimate of the time left
forecast            what a comparison will cost, measured and assumed before it runs
executors           compute cells: local processes, SLURM jobs, Ray tasks
computing           compute one cell: train an encoder, or run a probe on it
locks               one lock per cell, for several run_all on one folder
results             the results folder: measurements, failures, plan, CSV and Parquet
costs               what pretraining a row cost: images, operations, seconds, memory
environment         OUT/environment.json: hardware and package versions
progress            the state of a comparison, read from its folder
reproduction        rebuild a stored cell and compare its values
comparison          two results folders against each other
submissions         read and check results folders of other machines and people
merging             several results folders as one
verdict             summaries over seeds: means, intervals, differences from random weights
label_curves        how many labels a share is, what more bring, what a row is worth in labels
intervals           the statistics: intervals, tests, corrections, ranks
wording             sentences, lists and marks shared by terminal, report and commands
terminal            the results table as plain text
leaderboard         every row of several results folders on one static page
did_it_help         the command did-it-help: one question about the user's pictures, answered in sentences
report              the report as HTML, Markdown and LaTeX, with its figures
timing              speed measurements beside other libraries; not in the wheel
interval_simulation error rates of the intervals on simulated data; not in the wheel
"""
