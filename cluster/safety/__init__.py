"""The deployment ``SafetyClassifier``, and the routers' client of it."""
