"""`python -m cluster`: the whole product as one command."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    try:
        from cluster.kill_switch import fast

        done = fast(sys.argv[1:])
        if done is not None:
            sys.exit(done)
        from cluster.cli import main  # here, because an early Ctrl-C meets the imports
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing had been started\n")
        sys.exit(130)
    main()
