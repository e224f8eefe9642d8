"""Where the keys of token issuers are read from."""
