"""Fixtures of all tests.

Isolation
    `cache_folder` (automatic): every test unpacks datasets into a folder of its own.
Clusters
    `where`: a test that takes it runs twice, in this process and on a real cluster of two worker processes.
"""

import pytest

from lmr.runtime.cluster import Where


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LMR_CACHE", str(folder))
    return folder


@pytest.fixture(params=["in process", pytest.param("cluster", marks=pytest.mark.cluster)])
def where(request):
    return Where(workers=2) if request.param == "cluster" else Where()
