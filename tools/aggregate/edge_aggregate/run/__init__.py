"""Runners for what one machine's loop does not carry; they merge what `edge_aggregate.ingest` merges."""
