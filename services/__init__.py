"""What runs for long beside Prefect: the bridge, and the backlog of the compute client."""
