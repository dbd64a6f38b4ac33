"""Tests of work in threads: order, errors, and the number of threads of matrix products."""

import pytest
from threadpoolctl import threadpool_info

from erf.uncertainty.threads import map_in_threads


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_results_are_in_the_order_of_the_items() -> None:
    assert map_in_threads(lambda number: number**2, range(50)) == [number**2 for number in range(50)]


def test_a_matrix_product_within_has_one_thread_and_afterwards_as_many_as_before() -> None:
    before = blas_threads()
    assert before
    assert set(map_in_threads(lambda _: tuple(set(blas_threads())), range(4))) == {(1,)}
    assert blas_threads() == before


def test_an_error_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        map_in_threads(lambda number: 1 // number, [1, 0])
