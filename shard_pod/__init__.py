"""What runs in the pod of a shard: two shell scripts for the images of others, and the supervisor."""
