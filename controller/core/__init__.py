"""Data and decisions, on the standard library only.

Read in this order: `users`, `targets`, `drift`, `plans` (what there is), `planning` (the pure centre), `proofs` and
`proving` (without which nobody goes), `sweeping` (one run over everything), `events` and `absorbing` (one event),
`claims` (what is owed), `outcomes` (what is reported), `ports` (what the core needs from the outside). No I/O, no
framework, no clock of its own.
"""
