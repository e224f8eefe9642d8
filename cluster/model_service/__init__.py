"""The code that the deployments of small models share: ``SafetyClassifier`` and ``Embedder``."""
