"""One model is built at a time: transformers replaces methods of its classes meanwhile, for every thread.

Two threads that build at once leave them replaced: `PreTrainedModel.tie_weights` then does nothing in the process, and
a tied head holds whatever was in memory.
"""

from __future__ import annotations

import threading

BUILDING = threading.RLock()
