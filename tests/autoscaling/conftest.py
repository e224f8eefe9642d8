"""Ray is imported by the tests of the policy in Serve."""

import tests.ray_settings  # noqa: F401 - before Ray is imported
