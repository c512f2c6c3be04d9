"""Set-up shared by all tests."""

import torch

# One thread: small tensors gain nothing from more, and busy machines lose a lot.
torch.set_num_threads(1)
