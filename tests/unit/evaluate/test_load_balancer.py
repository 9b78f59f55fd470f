"""Requests are spread over replicas by how busy each is."""

import contextlib
from collections import Counter

import pytest

from scripts.evaluate.load_balancer import LoadBalancer

URLS = ("http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1", "http://127.0.0.1:3/v1")


def test_a_request_goes_to_a_replica_with_the_fewest_under_way() -> None:
    balancer = LoadBalancer(URLS)
    with contextlib.ExitStack() as under_way:
        taken = [under_way.enter_context(balancer.least_busy()) for _ in range(6)]
        assert Counter(taken) == dict.fromkeys(URLS, 2)
        assert taken[:3] == list(URLS)


def test_a_slow_replica_gets_fewer_requests() -> None:
    balancer = LoadBalancer(URLS)
    with balancer.least_busy() as slow:
        for _ in range(10):
            with balancer.least_busy() as first, balancer.least_busy() as second:
                assert {first, second} == set(URLS) - {slow}


def test_a_request_that_failed_is_no_longer_under_way() -> None:
    balancer = LoadBalancer(URLS[:2])
    for _ in range(3):
        with pytest.raises(OSError), balancer.least_busy() as url:
            assert url == URLS[0]
            raise OSError
