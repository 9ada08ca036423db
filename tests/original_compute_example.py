"""The example of the document that the compute client started from, run as it stands from a bare shell."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# As the document has it, with the imports that it leaves out.
CONSUMER = """
from typing import Any
from compute_client import Consumer, DynamoDBClient

InT = Any  # Must be json.dumps-able
OutT = Any  # Must be json.dumps-able

def your_function(body: InT, message_id: str) -> OutT:
    number = body["number"]
    # processing goes here
    return {"answer": 42}


consumer = Consumer(
    queue_name="sqs_queue_name.fifo",
    ddb_client=DynamoDBClient(table="ddb_table"),
    compute_result=your_function,
)
consumer.start_consuming()
"""
PRODUCER = """
import time
from typing import Any
from compute_client import DynamoDBClient, Producer, ResultStatus

InT = Any

def your_function(body, message_id):
    return {"answer": 42}

producer = Producer(
    queue_name="sqs_queue_name.fifo",
    ddb_client=DynamoDBClient(table="ddb_table"),
)

body: InT = {"number": 4}
id_ = producer.post_non_blocking(body)

timeout = time.time() + producer.timeout_seconds
while time.time() < timeout:
    status = producer.retrieve_result_status(id_)
    if status == ResultStatus.SUCCESS:
        break
else:
    raise TimeoutError("Timeout reached.")

resp = producer.retrieve_result(id_)
result = resp.result
assert result == your_function(body, id_)

result = producer.post(id_).result
assert result == your_function(body, id_)
"""


def run_original_example(queue: str, table: str, variables: Mapping[str, str], folder: Path) -> None:
    """Run consumer and producer in processes that have only these variables; only the two names are changed."""

    def named(code: str) -> list[str]:
        return [sys.executable, "-c", code.replace("sqs_queue_name.fifo", queue).replace("ddb_table", table)]

    shell = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[1]), **variables}
    consumer = subprocess.Popen(named(CONSUMER), env=shell, cwd=folder)
    try:
        producer = subprocess.run(
            named(PRODUCER), env=shell, cwd=folder, capture_output=True, text=True, timeout=90, check=False
        )
    finally:
        consumer.terminate()
        ended = consumer.wait(60)
    assert (producer.returncode, producer.stderr) == (0, "")
    assert ended == 0
