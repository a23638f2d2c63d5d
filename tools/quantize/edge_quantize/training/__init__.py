"""Nets, recipes, augmentation and the training loop."""
