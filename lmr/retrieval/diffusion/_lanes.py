"""Eight numbers that the processor treats as one, for `lmr.retrieval.diffusion._conjugate`.

Numba cannot be brought to keep a row of eight in a register: LLVM unrolls the loop over it into eight scalar
operations before it looks for vectors. So Numba is taught one more type, `Lanes`: eight float64 in a
register, with the operations that conjugate gradient needs. In memory a row may be float32.
"""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

__all__ = ["LANES", "add_product", "keep", "load", "prefetch", "splat", "store"]

LANES = 8
WIDE, NARROW = ir.VectorType(ir.DoubleType(), LANES), ir.VectorType(ir.FloatType(), LANES)


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Lanes")


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]  # Numba has no types
    def __init__(self, manager: Any, kind: _Lanes) -> None:
        super().__init__(manager, kind, WIDE)


lanes = _Lanes()


@intrinsic
def load(typing: Any, array: Any, row: Any) -> Any:
    """load(array, row): read row `row` of a C-contiguous (n, LANES) float32 or float64 array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = builder.load(_row(context, builder, array, *args), align=4)
        return builder.fpext(values, WIDE) if array.dtype == types.float32 else values

    return lanes(array, types.int64), generate


@intrinsic
def store(typing: Any, array: Any, row: Any, value: Any) -> Any:
    """store(array, row, value): write row `row` of a C-contiguous (n, LANES) float32 or float64 array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = builder.fptrunc(args[2], NARROW) if array.dtype == types.float32 else args[2]
        builder.store(values, _row(context, builder, array, *args[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.int64, lanes), generate


@intrinsic
def splat(typing: Any, number: Any) -> Any:
    """splat(number): the number in all lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        empty = ir.Constant(WIDE, ir.Undefined)
        first = builder.insert_element(empty, args[0], ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(ir.IntType(32), LANES), None))

    return lanes(types.float64), generate


@intrinsic
def add_product(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """add_product(a, b, c): a + b * c in each lane, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(WIDE, [WIDE] * 3)
        fused = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f64")
        return builder.call(fused, [args[1], args[2], args[0]])

    return lanes(lanes, lanes, lanes), generate


@intrinsic
def keep(typing: Any, bits: Any, a: Any) -> Any:
    """keep(bits, a): a in the lanes whose bit is set in the uint8 `bits`, 0 in the others."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        chosen = builder.bitcast(args[0], ir.VectorType(ir.IntType(1), LANES))
        return builder.select(chosen, args[1], ir.Constant(WIDE, [0.0] * LANES))

    return lanes(types.uint8, lanes), generate


@intrinsic
def prefetch(typing: Any, array: Any, place: Any) -> Any:
    """prefetch(array, place): ask for the cache line of an element of a flat array, without waiting."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        flag = ir.IntType(32)
        data = context.make_array(array)(context, builder, args[0]).data
        address = builder.bitcast(builder.gep(data, [args[1]]), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        asked = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(asked, [address, flag(0), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


def _row(context: Any, builder: Any, array: Any, value: Any, row: Any) -> Any:
    """Return the address of a row, as a pointer to a vector."""
    data = context.make_array(array)(context, builder, value).data
    first = builder.gep(data, [builder.mul(row, ir.Constant(row.type, LANES))])
    kind = NARROW if array.dtype == types.float32 else WIDE
    return builder.bitcast(first, kind.as_pointer())
