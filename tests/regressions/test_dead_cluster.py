"""Ray tries a dead RAY_ADDRESS for minutes before it gives up."""

import socket

import pytest

from raykd.errors import UserError
from raykd.training.cluster import connect


def test_an_address_where_nobody_listens_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    if ray.is_initialized():
        pytest.skip("this session has a cluster already")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    with pytest.raises(UserError, match=f"RAY_ADDRESS=127.0.0.1:{port}"):
        connect()
