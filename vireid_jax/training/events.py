"""tensorboardX's writer of events, kept from loading PyTorch.

tensorboardX imports PyTorch wherever it is installed, which takes seconds; only tensors need that.
"""

import sys

_absent = "torch" not in sys.modules
if _absent:
    sys.modules["torch"] = None  # an import of it fails
try:
    from tensorboardX import summary
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
finally:
    if _absent:
        del sys.modules["torch"]

__all__ = ["Event", "EventsWriter", "SessionLog", "summary"]
