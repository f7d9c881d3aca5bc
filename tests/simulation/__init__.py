"""Random histories of a whole world on a real PostgreSQL, and the promises as invariants.

Read in this order: `histories` (what may happen), `strategies` (how histories are drawn), `world` (who lives in it and
how a history is played), `clerk` (how Clerk lies), `turns` and `loop` (who goes on next, and what time it is),
`crashes` (how processes end), `connections` and `stage` (the database underneath), `evidence` (what was seen) and
`stories` (what it comes to), `invariants`, `mapped`, `requested` and `announced` (what must hold). `__main__` plays as
many histories as one likes.
"""
