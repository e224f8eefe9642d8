"""``python -m k8s.trial``: runs the pods of an overlay with podman, and asks what the kubelet and clients ask."""
