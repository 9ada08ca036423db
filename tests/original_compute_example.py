"""Examples of the compute client, run as they stand from a bare shell: the document's it started from, our page's."""

import os
import re
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


PROJECT = Path(__file__).parents[1]


def run_original_example(queue: str, table: str, variables: Mapping[str, str], folder: Path) -> None:
    """Run consumer and producer of the document; only the two names are changed."""
    names = {"sqs_queue_name.fifo": queue, "ddb_table": table}
    _run(CONSUMER, PRODUCER, names, variables, folder)


def run_page_example(queue: str, table: str, bucket: str, variables: Mapping[str, str], folder: Path) -> None:
    """Run the snippets of docs/compute-client.md: its function with its consumer, and its producer."""
    page = (PROJECT / "docs/compute-client.md").read_text("utf-8")
    function, producer, consumer = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    names = {'queue_name="compute"': f'queue_name="{queue}"', 'table="compute"': f'table="{table}"'}
    _run(function + consumer, producer, names | {"our-compute-contents": bucket}, variables, folder)


def _run(
    consumer_code: str, producer_code: str, names: Mapping[str, str], variables: Mapping[str, str], folder: Path
) -> None:
    """Both in processes that have only these variables; `names` are replaced in the code."""

    def named(code: str) -> list[str]:
        for written, meant in names.items():
            assert written in consumer_code + producer_code
            code = code.replace(written, meant)
        return [sys.executable, "-c", code]

    shell = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), **variables}
    consumer = subprocess.Popen(named(consumer_code), env=shell, cwd=folder)
    try:
        producer = subprocess.run(
            named(producer_code), env=shell, cwd=folder, capture_output=True, text=True, timeout=90, check=False
        )
    finally:
        consumer.terminate()
        ended = consumer.wait(60)
    assert (producer.returncode, producer.stderr) == (0, "")
    assert ended == 0
