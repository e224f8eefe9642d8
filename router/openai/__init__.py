"""OpenAI's wire formats: the JSON of requests and responses. They know no transport."""
