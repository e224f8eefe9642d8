"""The paths of the service: each module reads the requests of some of them, and answers."""
