"""Blocklists and allowlists of phrases. They are found in disguised text too, in whole passages and in answers as they
grow."""
