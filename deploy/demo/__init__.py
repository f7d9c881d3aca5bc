"""The story of `usersync demo`, told on a real Kubernetes API server; not in the package.

`python -m deploy.demo` takes the API server if its programs are at hand, else tells the story without; with
`--cluster` it builds them first. `stage_cluster` is the stage.
"""
