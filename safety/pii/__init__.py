"""Personal data: recognised in texts and streams, replaced by their kinds, or by pseudonyms that are turned back in the
answer."""
