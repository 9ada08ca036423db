"""What makes it run somewhere: the bridge, the set-up of a Prefect server, the embedded stack, the command line."""
