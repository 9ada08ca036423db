"""EvalAI's HTTP API: client, request budget, fields. Knows nothing of Prefect."""
