"""Settings for all tests."""

import gc
import os
import signal

import pytest

# Tests run side by side, and idle threads of a linear algebra library spin: before NumPy or torch is imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
# A shell starts what it puts in the background deaf to Ctrl+C, and so would be the commands that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish():
    """Compiling makes many objects that stay; looking for cycles among them took a tenth of the tests' time. Without, a
    worker grows to 1.7 GB. A test that needs the collector calls it."""
    gc.disable()


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Exactness is promised on one thread, and the machine may be shared."""
    import torch

    torch.set_num_threads(1)
