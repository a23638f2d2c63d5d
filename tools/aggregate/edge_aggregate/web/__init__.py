"""The pages: read-only over a store, one process beside whatever writes it."""
