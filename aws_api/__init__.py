"""AWS for every other package: errors translated, DynamoDB's values and conditional writes, S3's objects."""

from collections.abc import Callable
from typing import Any

ClientFactory = Callable[[str], Any]  # a service's name -> boto3's client for it
