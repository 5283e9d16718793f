"""How models learn: every stage is settings, a stream of batches and the one loop in `loop.py`."""

import os

# A CPU prepares a kernel for every new size of a batch (10 ms each, half a second per step); 1,024 are kept by default,
# fewer than the sizes of a run. Read when the first one is prepared.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
