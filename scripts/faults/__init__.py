"""Breaking a cluster on purpose: one command each, usable by hand and as functions. See docs/failure-injection.md."""
