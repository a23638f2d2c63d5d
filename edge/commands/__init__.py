"""What the command line does beside starting the services: demo, doctor, bench, status."""
