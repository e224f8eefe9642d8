"""The router: takes OpenAI's requests over HTTP, checks them, chooses a tier, and returns the engine's answers.

It reaches replicas and stores through ``router.ports`` only, which ``cluster`` implements.
"""
