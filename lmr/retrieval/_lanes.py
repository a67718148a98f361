"""Eight numbers that the processor treats as one, for `lmr.retrieval.conjugate`.

Numba cannot be brought to keep a row of eight in a register: LLVM unrolls the loop over it into eight scalar
operations before it looks for vectors. So Numba is taught one more type, `Lanes`: eight float64 in a
register, with the four operations that conjugate gradient needs.
"""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

__all__ = ["LANES", "add_product", "load", "splat", "store"]

LANES = 8
WIDE = ir.VectorType(ir.DoubleType(), LANES)


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
    """load(array, row): read row `row` of a C-contiguous (n, LANES) float64 array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_row(context, builder, array, *args), align=8)

    return lanes(array, types.int64), generate


@intrinsic
def store(typing: Any, array: Any, row: Any, value: Any) -> Any:
    """store(array, row, value): write row `row` of a C-contiguous (n, LANES) float64 array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _row(context, builder, array, *args[:2]), align=8)
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


def _row(context: Any, builder: Any, array: Any, value: Any, row: Any) -> Any:
    """The address of a row, as a pointer to a vector."""
    data = context.make_array(array)(context, builder, value).data
    first = builder.gep(data, [builder.mul(row, ir.Constant(row.type, LANES))])
    return builder.bitcast(first, WIDE.as_pointer())
