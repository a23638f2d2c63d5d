"""What every process needs: clock, logs, service manager, lifeline, supervision, statistics."""
