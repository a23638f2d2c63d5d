"""What a bundle is worth: scores, robustness, scenes, and the report."""
