"""The command line: parses, opens the runtime, calls the core, prints.

Read in this order: `main` (which commands there are), `failures` (errors become a line and an exit code),
`exits`, `inputs` (manifest or environment), `sweeps` (the commands that do a run), `rendering`. Decides
nothing about users or rows.
"""
