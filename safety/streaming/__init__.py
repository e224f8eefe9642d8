"""Moderation of answers while they are generated: scanners and classifier over text that arrives in pieces."""
