"""Open questions of everyday life, each with simple checks of its own: for models that know English, be they small."""
