"""Turns predicted masks and features into per-image scores, and scores into honest intervals."""
