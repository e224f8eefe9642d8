"""What the engine does under pressure, without a cluster around it: random models made on the fly, printed tables."""
