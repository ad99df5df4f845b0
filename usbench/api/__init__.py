"""What Python and notebooks call: `usbench.run`, `load`, `leaderboard` and `compare`. The command line is its skin."""
