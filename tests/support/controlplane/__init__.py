"""A real Kubernetes API server and etcd for the tests, the demo and a person at a terminal.

Built once from their Go modules (`building`), run as processes on 127.0.0.1 (`server`), spoken to by the real
kubectl (`kubectl`). No scheduler, no kubelet and no controllers: Deployments start nothing, namespaces never
finish deleting, nothing is garbage-collected, and no namespace has a `default` ServiceAccount.
"""

from tests.support.controlplane.building import BuildError, Programs, build, find
from tests.support.controlplane.kubectl import Kubectl, KubectlError
from tests.support.controlplane.server import Answer, ControlPlane, StartError

__all__ = [
    "Answer",
    "BuildError",
    "ControlPlane",
    "Kubectl",
    "KubectlError",
    "Programs",
    "StartError",
    "build",
    "find",
]
