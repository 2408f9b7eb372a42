"""Settings for all tests."""

import gc
import os

import pytest

# Tests run side by side, and idle threads of a linear algebra library spin: before NumPy or torch is imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


def pytest_collection_finish():
    """Every collected test is an object that stays; compiling makes so many others that looking at them takes time."""
    gc.freeze()
    gc.set_threshold(500_000, 20, 50)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Exactness is promised on one thread, and the machine may be shared."""
    import torch

    torch.set_num_threads(1)
