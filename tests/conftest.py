"""Settings for all tests."""

import pytest
import torch


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """One worker of pytest-xdist runs a file: its fixtures, and the environments that it loads, are made once.

    test_envs.py names groups of its own.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Exactness is promised on one thread, and the machine may be shared."""
    torch.set_num_threads(1)
