"""Kubernetes manifests, and the two commands that make what is not written by hand: the Serve configs of the overlays
and the first secrets. Nothing of this is part of the running service."""
