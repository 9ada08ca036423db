"""The function of the flow `hello-batch`: what runs on AWS Batch."""


def hello(name: str) -> str:
    """A greeting, printed there and returned."""
    greeting = f"Hi from AWS Batch, {name}!"
    print(greeting, flush=True)
    return greeting
