"""What is read from the text of compiled programs."""

import collections

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import programs

_NHWC = ("NHWC", "HWIO", "NHWC")


def test_operations_are_counted_where_they_come_from():
    def f(kernel, matrix, x):
        with jax.named_scope("augment"):
            x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=_NHWC)
            x = jnp.tanh(x)
        with jax.named_scope("losses"):
            return jnp.tanh(x.reshape(-1, 6) @ matrix).sum()

    x, kernel, matrix = jnp.ones((2, 16, 12, 4)), jnp.ones((3, 3, 4, 6)), jnp.ones((6, 10))
    gradient = jax.jit(jax.grad(f, (0, 1)))
    found = programs.operations(gradient.lower(kernel, matrix, x).compile().as_text())
    flop = collections.Counter()
    for operation in found.values():
        flop[operation.part, operation.backward, operation.kind] += operation.flop
    rows = 2 * 16 * 12
    product, convolution = 2 * rows * 6 * 10, 2 * rows * 6 * 9 * 4
    assert {key: count for key, count in flop.items() if count} == {
        ("augment", False, "convolutions"): convolution,
        ("losses", False, "products"): product,
        ("losses", True, "products"): 2 * product,
        ("augment", True, "convolutions"): pytest.approx(convolution, rel=0.01),
    }


def test_collectives_are_counted_with_the_bytes_of_whole_arrays():
    def f(x, y):
        total, mean = lax.psum(x, "d"), lax.pmean(y, "d")
        return total, mean, lax.all_gather(x * mean.sum(), "d")

    args = jnp.ones((4, 8, 3)), jnp.ones((4, 5))
    text = jax.pmap(f, axis_name="d").lower(*args).compile().as_text()
    found = programs.collectives(text, 4)
    assert len(found) in (2, 3)  # XLA may reduce both arrays at once
    assert sum(found) == 5 * 4 + 8 * 3 * 4 + 4 * 8 * 3 * 4


def test_operations_in_loops_count_as_often_as_they_are_computed():
    def f(matrix, rows):
        with jax.named_scope("losses"):
            return lax.map(lambda x: jnp.tanh(lax.map(lambda y: y @ matrix, x)), rows)

    args = jnp.ones((6, 10)), jnp.ones((3, 5, 8, 6))
    found = programs.operations(jax.jit(f).lower(*args).compile().as_text())
    flop = sum(operation.flop for operation in found.values())
    assert flop == 3 * 5 * 2 * 8 * 6 * 10


def test_what_a_loop_names_twice_is_counted_once_a_turn():
    program = """
%shared (x: f32[4,6]) -> f32[4,4] {
  %x = f32[4,6]{1,0} parameter(0)
  ROOT %dot.1 = f32[4,4]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={1}
}

%body (s: (f32[4,6])) -> (f32[4,6]) {
  %s = (f32[4,6]{1,0}) parameter(0)
  %a = f32[4,4]{1,0} fusion(%s), kind=kLoop, calls=%shared
  %b = f32[4,4]{1,0} fusion(%s), kind=kLoop, calls=%shared
}

ENTRY %main (x: f32[4,6]) -> f32[4,6] {
  %w = (f32[4,6]{1,0}) while(%x), body=%body, backend_config={"known_trip_count":{"n":"7"}}
}
"""
    assert programs.operations(program)["dot.1"].flop == 7 * 2 * 4 * 4 * 6
