"""The results of CARLA's evaluators: records, checkpoints, the merge, the metrics, the text for people."""
