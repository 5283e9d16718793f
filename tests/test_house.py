"""The promises of conftest.py: no network, the same dice for every test."""

from __future__ import annotations

import socket
import urllib.request

import pytest
import torch


def test_reaching_for_another_machine_fails_at_once() -> None:
    with pytest.raises(OSError, match="tests run offline"):
        urllib.request.urlopen("http://example.com", timeout=1)
    with pytest.raises(OSError, match="tests run offline"), socket.socket() as connection:
        connection.connect(("192.0.2.1", 80))


def test_a_server_on_this_machine_can_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(("localhost", server.getsockname()[1]), timeout=5) as connection:
            assert connection.getpeername()[1] == server.getsockname()[1]


@pytest.mark.parametrize("attempt", [1, 2])
def test_every_test_starts_from_the_same_seed(attempt: int) -> None:
    drawn = torch.rand(3)
    torch.manual_seed(0)
    torch.testing.assert_close(drawn, torch.rand(3), rtol=0, atol=0)


def test_a_test_runs_on_one_thread() -> None:
    assert torch.get_num_threads() == 1
