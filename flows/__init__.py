"""The flows: what used to be the Step Function."""
