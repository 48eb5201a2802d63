"""What a damaged checkpoint leaves behind is collected where it was made."""

import gc
import warnings

import pytest


@pytest.fixture(autouse=True)
def collected(request):
    """Orbax leaves a coroutine that was never awaited, which warns when it goes."""
    yield
    name = request.module.__name__
    if "checkpoint" in name or "run_folders" in name:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
