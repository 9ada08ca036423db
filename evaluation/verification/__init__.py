"""Whether a result can be believed: each record against what is known from outside the agent's container. Pure."""
