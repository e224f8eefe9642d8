"""What the safety floor costs."""
