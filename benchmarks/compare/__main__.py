"""Start the comparison: ``python benchmarks/compare`` or ``python -m benchmarks.compare``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from compare.command import main

if __name__ == "__main__":
    sys.exit(main())
