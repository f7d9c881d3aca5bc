"""`make bench`: figures of a sweep beside the naive way, in one run on one machine.

Read the ratios, not the seconds: both contestants share the cores with the database and the emulator.
"""
