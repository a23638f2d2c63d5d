"""Datasets as arrays, leak-free splits, other people's faces."""
