"""How fast the harness is on this machine: every comparison in one run, on the same images, encoder and batch."""
