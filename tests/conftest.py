"""Settings for all tests."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Exactness is promised on one thread, and the machine may be shared."""
    torch.set_num_threads(1)
