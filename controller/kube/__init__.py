"""Kubernetes, and the files that stand in for it.

Read in this order: `fields` and `rules` (what a resource may say), `specs` (it becomes what the core reads), `secrets`
(what its references resolve to), `manifests` (files without a cluster), `client` (the API server), `events`. The only
user of the Kubernetes client; decides nothing about users or rows.
"""
