"""Safety in the router: passes the texts of requests and answers to the guard of ``safety.api``, and applies its
verdicts."""
