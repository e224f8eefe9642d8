"""The settings of the router, by room."""
