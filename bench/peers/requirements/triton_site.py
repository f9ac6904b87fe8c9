"""Imported when any Python of Triton's environment starts, the one that Triton embeds included.

That one is an older patch release than the standard library that it finds, whose resource tracker (since 3.11.7) asks
a lock for what the interpreter's own locks do not have. Python's own lock has it.
"""

import threading

if not hasattr(threading.RLock(), "_recursion_count"):
    from multiprocessing import resource_tracker

    resource_tracker._resource_tracker._lock = threading._PyRLock()  # type: ignore[attr-defined]
