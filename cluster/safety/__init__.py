"""The deployment ``SafetyClassifier``, and the routers' way to it."""
