"""The store, the plan and the engines: what is computed, where it lies, and what is missing."""
