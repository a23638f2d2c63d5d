"""Service 2: from the outbox to the broker. It has a network, so it has no devices and never imports vision."""
