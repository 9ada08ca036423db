"""Routes that pairs pull: the pool of a submission, expected durations, how many routes a start takes. Pure."""
