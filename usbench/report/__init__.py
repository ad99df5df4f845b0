"""Tables and figures, all derived from the store."""
