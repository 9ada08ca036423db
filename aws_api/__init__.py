"""AWS for every other package: errors translated, DynamoDB's values and updates, S3."""
