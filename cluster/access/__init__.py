"""The sources of token issuers' keys: files and URLs."""
