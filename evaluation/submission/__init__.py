"""The queue's message, and the submission as EvalAI describes it."""
