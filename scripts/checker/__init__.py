"""Decides from a recorded history whether a cluster kept its promises. Pure: nothing here looks at a cluster or a clock.

history.py    what clients asked and were answered, one JSON object a line
pieces.py     bytes that say who wrote them
model.py      what each operation means: a tree of files and directories
linear.py     the search: is there one order of all operations that explains every answer?
streams.py    files written through a handle: what was synced is there, and nothing that was not written
audit.py      after healing: every block has its copies, whole ones, and nothing else lies on any disk
verdict.py    all of it together

`python scripts/checker HISTORY` prints the verdict of a history; `scripts/chaos.py` records them.
"""
