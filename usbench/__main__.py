"""`python -m usbench`."""

from usbench.cli import main

if __name__ == "__main__":
    main()
