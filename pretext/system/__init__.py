"""The base layer: errors, files, command lines, devices and processes. It knows nothing of images or encoders.

errors        UserError and its base InputError, suggestions for typos, exit codes
command_line  a frozen dataclass as a command line, with one-line errors
help_page     the page that `--help` prints
declarations  classes and settings read from source text, so that help needs no import of torch
catalogue     names of all tasks, probes, data sets and encoders, read in the same way
lazy_imports  public names of a package that are imported on first use
ranges        ranges that hold for every setting: seeds, 64 bits, finite numbers
specs         the grammar of specs: KIND[:PATH][?key=value&…]
plugins       tasks and probes in a user's own Python file
checkpoint    atomic writes; training checkpoints as safetensors files
stored_json   reading JSON files that an earlier call has written, with one-line errors
cache         the folder for packed data sets and features
stamps        which files of the cache this machine has checked in full
device        `--device auto`
precision     float32 or bfloat16 in the layers of a network that is trained
distributed   torchrun: rank, gathered rows, averaged gradients, common decisions
launching     several processes on this machine that train together
progress      a bar on a terminal, elsewhere a line every ten seconds
stopping      finish and save the current step on Ctrl-C, SIGTERM or SIGHUP
background    a value computed in a thread while something else goes on
locks         files and folders that one process at a time may use
memory        peak memory
memory_order  the order of values in memory, and steps of fused optimisers that go by it
revision      the Git commit of the running code
installation  the installed version; whether another distribution has overwritten a package
"""
