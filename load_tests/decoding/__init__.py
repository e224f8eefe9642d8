"""What decoding controls cost, and whether they hold."""
