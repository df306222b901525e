"""The comparison: plan the cells, compute them, summarise the results and write the report.

console             every command of the four packages as pretext-bench COMMAND
run_all             the command: options, plan, computation, table and report
options             the flags of run_all, and the plan that they describe
commands            the subcommands status, compare, reproduce and clean
sharing             the subcommands merge and leaderboard
sweeping            a row whose settings are chosen from several on val
planning            rows, probes and profiles, and all cells of a comparison
forecast            what a comparison will cost, measured and assumed before it runs
executors           compute cells: local processes, SLURM jobs, Ray tasks
records             what a results folder holds: measurements, failures, plan, environment
folders             look at results folders, make values again, compare and merge
summaries           means, intervals and tests over seeds; costs
words               names, order and words of tables, pages and commands
report              the report as HTML, Markdown, LaTeX and text, with its figures
leaderboard         every row of several results folders on one static page
did_it_help         the command did-it-help: one question about the user's pictures, answered in sentences
timing              speed measurements beside other libraries; not in the wheel
interval_simulation error rates of the intervals on simulated data; not in the wheel
"""
