"""Running the models: one protocol, one file a runtime."""
