"""The autoscaler: decides the number of replicas of each tier from a snapshot, with the reasons. Pure."""
