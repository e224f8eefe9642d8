"""Ray is imported by the tests of the command `manta scale`."""

import tests.ray_settings  # noqa: F401 - before Ray is imported
