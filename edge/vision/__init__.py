"""Service 1: from cameras to the outbox. It sees faces, so it has no network and never imports the publisher."""
