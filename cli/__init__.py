"""The command line `leaderboard`, one module per group of commands."""
