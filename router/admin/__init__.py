"""The admin API, ``/admin/v1`` and ``/v1/usage``: keys, stored answers, safety policies, prompts, reviews and
scaling."""
