"""Packs, splits and the feed: how images get from a file to the device."""
