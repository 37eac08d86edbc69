"""`python -m alexnet` is `alexnet`."""

import sys

from alexnet.cli import main

if __name__ == "__main__":
    sys.exit(main())
