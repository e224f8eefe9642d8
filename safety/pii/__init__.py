"""Personal data: recognised in texts and streams, replaced by kinds or by pseudonyms that are put back later."""
