"""What requests of all kinds share on their way, and the ways of those that no tier answers."""
