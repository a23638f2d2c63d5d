"""Model bundles: manifest, signature, what a model file may hold, golden answers. Runs no model."""
