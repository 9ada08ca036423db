"""Shard Jobs on Kubernetes: templates, renderer, backend, and the scripts that run in the pod."""
