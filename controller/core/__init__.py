"""Data and decisions, on the standard library only.

Read in this order: `users`, `targets`, `drift`, `plans` (what there is), `planning` (the pure centre),
`sweeping` (one run over everything), `absorbing` (one event), `outcomes` (what is reported), `ports`
(what the core needs from the outside). No I/O, no framework, no clock of its own.
"""
