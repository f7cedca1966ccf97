"""Shape annotations are checked at run time while the tests run."""

import torch
from jaxtyping import install_import_hook

# Threads that wait for each other make small tests slow on a busy machine.
torch.set_num_threads(1)

install_import_hook("nasproxy", "beartype.beartype")
