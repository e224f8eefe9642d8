"""Text in, verdict out. The floor's rooms arrive with the safety issues; the package exists so that the floors hold."""
