"""`visum gateway` that ends, as by a power cut, before or after the first call of one method.

python -m tests.resilience.dying_gateway before|after MODULE:CLASS.METHOD
"""

from __future__ import annotations

import sys

from tests.resilience.light_worker import die_at
from visum.parts import run_gateway

if __name__ == "__main__":
    die_at(*sys.argv[1:])
    run_gateway()
