"""`leaderboard doctor`: whether everything that an installation needs is there, and what to do where it is not.

A check is one line. It returns what it found, raises NotChecked where it could not check, or an error of our own tree,
whose remedy is the line's. `context.py` is what the checks read; the other modules are the checks, one per system.
"""
