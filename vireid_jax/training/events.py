"""tensorboardX's writer of events, without PyTorch: where that is installed it would load it too.

That takes seconds, and only what writes tensors has a use for it.
"""

import sys

_absent = sys.modules.setdefault("torch", None) is None  # importing it fails, where it is not yet
try:
    from tensorboardX import summary
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
finally:
    if _absent:
        del sys.modules["torch"]

__all__ = ["Event", "EventsWriter", "SessionLog", "summary"]
