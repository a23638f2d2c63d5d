"""From float nets to a verified int8 bundle."""
