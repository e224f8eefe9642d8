"""The transport: HTTP over ASGI, and server-sent events. It knows no wire format."""
