"""What runs a process: probes, metrics, logs. Knows nothing of users; used by `reconciler`, `web` and `cli`."""
