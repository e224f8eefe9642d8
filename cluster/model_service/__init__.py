"""What the deployments of small models share: ``SafetyClassifier`` and ``Embedder``."""
