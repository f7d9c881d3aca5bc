"""The operator: keeps every UserSync reconciled.

Read in this order: `deciding` (is a run due? pure), `conditions` and `statuses` (what is reported, pure), `queue`
(who is next, pure), `dispatching` (looks, so many at once), `reconciling` (one look at one resource), `informing`
(kopf, as informer only), `operator` (the process), `metrics`. Never decides what a run may change: that is the core.
"""
