"""For all tests."""

import sys

import pytest


@pytest.fixture(autouse=True, scope="module")
def own_processes():
    """Each file of tests begins without pool: the CRF's (loky) and joblib's are one and the same object, and do not mix."""
    if "joblib.externals.loky" in sys.modules:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True)
    yield
