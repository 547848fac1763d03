"""A vector type for numba: eight float64 numbers, which one operation processes together.

numba leaves vectorization to LLVM, which gives up on short loops of unknown length. Recursions over labels and spans
consist of such loops only. Here, a vector of `WIDTH` numbers (lanes) is a value with arithmetic, loads and stores. LLVM
maps it to the registers of the processor: one for AVX-512, two for AVX2, four for NEON or SSE.

Positions are indices into one-dimensional views of contiguous arrays. They are not checked. float32 arrays are widened
on loading and rounded on storing.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

from .disk import KernelCache

if TYPE_CHECKING:
    from numba.core.base import BaseContext
    from numba.core.datamodel.manager import DataModelManager
    from numba.core.dispatcher import Dispatcher
    from numba.core.typing import Context, Signature

    Values = Sequence[ir.Value]
    #: A signature, and the function that generates code for it.
    Intrinsic = tuple[Signature, Callable[..., ir.Value]]

WIDTH = 8
#: A product of factors replaces a sum of their logarithms as long as it stays in PRODUCT..1 / PRODUCT.
PRODUCT = 1e-150

#: Decorators for the functions that kernels call.
inner = njit(error_model="numpy", nogil=True)
inlined = njit(error_model="numpy", nogil=True, forceinline=True)

_FLOAT, _INTEGER = ir.DoubleType(), ir.IntType(64)
_FLOATS, _INTEGERS = ir.VectorType(_FLOAT, WIDTH), ir.VectorType(_INTEGER, WIDTH)

#: Coefficients of the minimax polynomial for exp on |x| <= log(2) / 2, whose relative error is 2.2e-16.
_EXP = (
    1.0,
    1.0000000000000064,
    0.49999999999997274,
    0.1666666666655731,
    0.041666666668433015,
    0.008333333384818908,
    0.001388888849797751,
    0.0001984117118829512,
    2.4801918340561648e-05,
    2.7639850353088152e-06,
    2.748837736096306e-07,
)
#: `exp` returns 0 below this number, so that every other result is a normal number.
_LOWEST = -708.0


class Lanes(types.Type):
    """The numba type of `WIDTH` float64 numbers."""

    def __init__(self) -> None:
        super().__init__(name=f"Lanes({WIDTH})")


lanes = Lanes()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: DataModelManager, kind: types.Type) -> None:
        super().__init__(manager, kind, _FLOATS)


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_FLOATS, [value] * WIDTH)


def _integers(*values: int) -> ir.Constant:
    return ir.Constant(_INTEGERS, list(values) if len(values) > 1 else list(values) * WIDTH)


def _call(
    builder: ir.IRBuilder, name: str, result: ir.Type, arguments: Values, fastmath: tuple[str, ...] = ()
) -> ir.Value:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, f"{name}.v{WIDTH}f64")
    return builder.call(function, arguments, fastmath=fastmath)


def _shuffle(builder: ir.IRBuilder, x: ir.Value, y: ir.Value, *order: int) -> ir.Value:
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), list(order)))


def _broadcast(builder: ir.IRBuilder, x: ir.Value, kind: ir.Type) -> ir.Value:
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, x, ir.Constant(ir.IntType(32), 0))
    return _shuffle(builder, first, undefined, *[0] * WIDTH)


def _address(
    context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: Values
) -> tuple[ir.Value, int]:
    """Return a pointer to the vector at position arguments[1] of the array arguments[0], and an element's bytes."""
    kind = signature.args[0]
    array = context.make_array(kind)(context, builder, arguments[0])
    position = context.cast(builder, arguments[1], signature.args[1], types.intp)
    element = ir.FloatType() if kind.dtype == types.float32 else _FLOAT
    pointer = builder.bitcast(builder.gep(array.data, [position]), ir.VectorType(element, WIDTH).as_pointer())
    return pointer, kind.dtype.bitwidth // 8


def _arithmetic(symbol: Callable[..., object], instruction: str) -> None:
    @type_callable(symbol)
    def typed(context: Context) -> Callable[[types.Type, types.Type], types.Type | None]:
        return lambda x, y: lanes if x == y == lanes else None

    @lower_builtin(symbol, Lanes, Lanes)
    def lowered(context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: Values) -> ir.Value:
        return getattr(builder, instruction)(*arguments)


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")
_arithmetic(operator.truediv, "fdiv")


@intrinsic
def splat(context: Context, x: types.Type) -> Intrinsic:
    """Return a vector with the number x in every lane."""

    def generate(context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: Values) -> ir.Value:
        return _broadcast(builder, context.cast(builder, arguments[0], signature.args[0], types.float64), _FLOATS)

    return lanes(x), generate


@intrinsic
def load(context: Context, array: types.Type, position: types.Type) -> Intrinsic:
    """Return array[position : position + WIDTH]."""

    def generate(context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: Values) -> ir.Value:
        pointer, size = _address(context, builder, signature, arguments)
        value = builder.load(pointer, align=size)
        return value if size == 8 else builder.fpext(value, _FLOATS)

    return lanes(array, position), generate


@intrinsic
def store(context: Context, array: types.Type, position: types.Type, x: types.Type) -> Intrinsic:
    """Store x to array[position : position + WIDTH]."""

    def generate(context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: Values) -> ir.Value:
        pointer, size = _address(context, builder, signature, arguments)
        value = arguments[2] if size == 8 else builder.fptrunc(arguments[2], ir.VectorType(ir.FloatType(), WIDTH))
        builder.store(value, pointer, align=size)
        return context.get_dummy_value()

    return types.void(array, position, lanes), generate


@intrinsic
def spread(context: Context, array: types.Type, position: types.Type) -> Intrinsic:
    """Return a vector with the number array[position] in every lane."""

    def generate(context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: Values) -> ir.Value:
        kind = signature.args[0]
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        value = builder.load(builder.gep(context.make_array(kind)(context, builder, arguments[0]).data, [index]))
        return _broadcast(builder, context.cast(builder, value, kind.dtype, types.float64), _FLOATS)

    return lanes(array, position), generate


@intrinsic
def lane(context: Context, x: types.Type, which: types.Type) -> Intrinsic:
    """Return the number in one lane."""

    def generate(context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: Values) -> ir.Value:
        index = context.cast(builder, arguments[1], signature.args[1], types.int64)
        return builder.extract_element(arguments[0], index)

    return types.float64(lanes, which), generate


@intrinsic
def with_lane(context: Context, x: types.Type, which: types.Type, value: types.Type) -> Intrinsic:
    """Return x with the number in one lane replaced."""

    def generate(context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: Values) -> ir.Value:
        index = context.cast(builder, arguments[1], signature.args[1], types.int64)
        return builder.insert_element(arguments[0], arguments[2], index)

    return lanes(lanes, which, types.float64), generate


@intrinsic
def keep(context: Context, x: types.Type, count: types.Type, fill: types.Type) -> Intrinsic:
    """Return x in the first `count` lanes and the number `fill` in the others."""

    def generate(context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: Values) -> ir.Value:
        limit = context.cast(builder, arguments[1], signature.args[1], types.int64)
        inside = builder.icmp_signed("<", _integers(*range(WIDTH)), _broadcast(builder, limit, _INTEGERS))
        return builder.select(inside, arguments[0], _broadcast(builder, arguments[2], _FLOATS))

    return lanes(lanes, count, types.float64), generate


@intrinsic
def fma(context: Context, x: types.Type, y: types.Type, z: types.Type) -> Intrinsic:
    """Return x * y + z, rounded once if the processor has fused multiply-add."""

    def generate(context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: Values) -> ir.Value:
        return _call(builder, "llvm.fmuladd", _FLOATS, list(arguments))

    return lanes(lanes, lanes, lanes), generate


@intrinsic
def maximum(context: Context, x: types.Type, y: types.Type) -> Intrinsic:
    """Return the larger of two numbers in every lane; y if one of them is NaN."""

    def generate(context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: Values) -> ir.Value:
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return lanes(lanes, lanes), generate


@intrinsic
def weighted(context: Context, p: types.Type, x: types.Type) -> Intrinsic:
    """Return p * x, with 0 * -inf = 0."""

    def generate(context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: Values) -> ir.Value:
        p, x = arguments
        return builder.select(builder.fcmp_ordered("==", p, _constant(0.0)), _constant(0.0), builder.fmul(p, x))

    return lanes(lanes, lanes), generate


@intrinsic
def total(context: Context, x: types.Type) -> Intrinsic:
    """Return the sum of the lanes."""

    def generate(context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: Values) -> ir.Value:
        zero = ir.Constant(_FLOAT, -0.0)
        return _call(builder, "llvm.vector.reduce.fadd", _FLOAT, [zero, arguments[0]], fastmath=("reassoc",))

    return types.float64(lanes), generate


@intrinsic
def largest(context: Context, x: types.Type) -> Intrinsic:
    """Return the largest of the lanes."""

    def generate(context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: Values) -> ir.Value:
        return _call(builder, "llvm.vector.reduce.fmax", _FLOAT, [arguments[0]])

    return types.float64(lanes), generate


@intrinsic
def totals(
    context: Context,
    a: types.Type,
    b: types.Type,
    c: types.Type,
    d: types.Type,
    e: types.Type,
    f: types.Type,
    g: types.Type,
    h: types.Type,
) -> Intrinsic:
    """Return a vector whose lane k is the sum of the lanes of the k-th argument."""

    def generate(context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: Values) -> ir.Value:
        def fold(x: ir.Value, y: ir.Value, left: tuple[int, ...], right: tuple[int, ...]) -> ir.Value:
            return builder.fadd(_shuffle(builder, x, y, *left), _shuffle(builder, x, y, *right))

        rows = list(arguments)
        for left, right in (
            ((0, 8, 2, 10, 4, 12, 6, 14), (1, 9, 3, 11, 5, 13, 7, 15)),
            ((0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15)),
            ((0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)),
        ):
            rows = [fold(x, y, left, right) for x, y in zip(rows[::2], rows[1::2], strict=True)]
        return rows[0]

    return lanes(*[lanes] * WIDTH), generate


@intrinsic
def exp(context: Context, x: types.Type) -> Intrinsic:
    """Return exp of numbers up to 0, to a relative error of 1e-15 (3e-14 near -708); 0 below -708; NaN for NaN."""

    def generate(context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: Values) -> ir.Value:
        def fused(*factors: ir.Value) -> ir.Value:
            return _call(builder, "llvm.fmuladd", _FLOATS, list(factors))

        (x,) = arguments
        lowest = _constant(_LOWEST)
        below = builder.fcmp_ordered("<", x, lowest)
        y = builder.select(below, lowest, x)
        # Adding 1.5 * 2^52 rounds to an integer and leaves it in the low bits.
        shift = _constant(1.5 * 2.0**52)
        rounded = fused(y, _constant(1.4426950408889634), shift)
        rest = fused(builder.fsub(rounded, shift), _constant(-0.6931471805599453), y)
        value = _constant(_EXP[-1])
        for coefficient in _EXP[-2::-1]:
            value = fused(value, rest, _constant(coefficient))
        exponent = builder.shl(builder.add(builder.bitcast(rounded, _INTEGERS), _integers(1023)), _integers(52))
        return builder.select(below, _constant(0.0), builder.fmul(value, builder.bitcast(exponent, _FLOATS)))

    return lanes(lanes), generate


@inner
def _load_end(array, position):
    x = splat(0.0)
    for k in range(array.size - position):
        x = with_lane(x, k, float(array[position + k]))
    return x


@inlined
def load_within(array, position):
    """Return array[position : position + WIDTH], with 0 beyond the end of the array."""
    if position + WIDTH <= array.size:
        return load(array, position)
    return _load_end(array, position)


@inlined
def load_first(array, position, count, fill):
    """Return `count` numbers of array[position:] and `fill` in the other lanes, without reading beyond the array."""
    return keep(load_within(array, position), count, fill)


@inlined
def store_first(array, position, x, count):
    """Store the first `count` lanes to array[position:], and nothing beyond them."""
    if count >= WIDTH:
        store(array, position, x)
    else:
        for k in range(count):
            array[position + k] = lane(x, k)


@inner
def aligned(count):
    """Allocate `count` numbers, aligned to a cache line. One vector beyond them may also be read and written."""
    array = np.empty(count + 2 * WIDTH)
    offset = (-array.ctypes.data % 64) // 8
    return array[offset : offset + count + WIDTH]


@inner
def aligned_zeros(count):
    """Allocate as `aligned` does, and fill with 0."""
    array = aligned(count)
    array[:] = 0.0
    return array


@inlined
def store_row(array, position, x, count, stop):
    """Store the first `count` lanes to array[position:]. The other lanes may also be stored, but not from `stop` on.

    So rows must be stored in order, since each may overwrite the beginning of the next one.
    """
    if position + WIDTH <= stop:
        store(array, position, x)
    else:
        store_first(array, position, x, count)


def kernel(function: Callable[..., object]) -> Dispatcher:
    """Compile a function for calls from Python. It runs without the interpreter lock, and its code is kept on disk."""
    dispatcher = njit(error_model="numpy", nogil=True)(function)
    dispatcher._cache = KernelCache(function)  # type: ignore[attr-defined]
    return dispatcher


@kernel
def probe(x):
    """Compute exp of 8 numbers in place. `runtime` calls this to check whether compiling works at all."""
    store(x, 0, exp(load(x, 0)))
