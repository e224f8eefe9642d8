"""The ports: protocols of everything outside the router, with their types and errors. ``cluster`` implements most of
them."""
