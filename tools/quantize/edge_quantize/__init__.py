"""The host toolchain: makes the models that the appliance runs (`edge-quantize`)."""
