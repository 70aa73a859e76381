"""A DataNode among equals: identity, discovery, who has what, mutable names, shared pins. Needs no NameNode."""
