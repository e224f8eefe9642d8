"""Block- and allowlists of phrases, found in text however it is disguised: whole passages, and answers as they grow."""
