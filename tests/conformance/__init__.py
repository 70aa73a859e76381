"""TwinFS held against software that was not written here."""
