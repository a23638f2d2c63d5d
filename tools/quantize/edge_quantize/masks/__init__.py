"""Synthetic masks: landmarks, templates, and how one is put on a face."""
