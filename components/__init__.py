"""KFP components: one folder a stage, each a typed signature and one call into robolift.

KFP is imported here once, without its client: that brings the whole Kubernetes API with it, most of what KFP takes to
start, and neither compiling nor running here needs it. The variable is the one by which KFP keeps it out of its own
steps; :mod:`kfp.client` itself is imported by what talks to a server.
"""

import importlib
import os

# The C implementation's maps iterate in an order that differs between processes, and KFP numbers the copies of a
# sub-pipeline's steps in that order: the compiled file would differ each time.
os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")

RUNTIME_VARIABLE = "_KFP_RUNTIME"

if RUNTIME_VARIABLE not in os.environ:
    os.environ[RUNTIME_VARIABLE] = "true"
    importlib.import_module("kfp")
    del os.environ[RUNTIME_VARIABLE]
