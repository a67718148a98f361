"""Products of short whole numbers with a comparison at their end, for `lmr.retrieval.global_search.lists`.

Processors multiply and add two pairs of 16 bits where they do so with one float32, and whole numbers come out
the same in whatever order they are summed. Numba cannot be brought to use those instructions. So one block of
products, `BLOCK` queries by `WIDTH` rows, is written here as LLVM understands it: its sums never leave the
registers before they have been compared with what each query still wants.
"""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.extending import intrinsic

__all__ = ["BLOCK", "LANES", "WIDTH", "first_bit", "multiply_block"]

LANES = 16  # rows side by side in a register, each with a pair of numbers
VECTORS = 2
WIDTH = LANES * VECTORS
BLOCK = 12  # with two vectors each: 24 sums, which leaves registers for what is multiplied

_WORD, _LONG, _HALF = ir.IntType(32), ir.IntType(64), ir.IntType(16)
_PAIR = ir.VectorType(_HALF, 2)
_SUMS, _PAIRS = ir.VectorType(_WORD, LANES), ir.VectorType(_HALF, 2 * LANES)


@intrinsic
def multiply_block(
    typing: Any, queries: Any, query: Any, rows: Any, group: Any, bars: Any, products: Any, hits: Any
) -> Any:
    """multiply_block(queries, query, rows, group, bars, products, hits): multiply, and tell who is wanted.

    `queries` (m, p) int32 and `rows` (groups, p, WIDTH) int32 hold pairs of int16, C-contiguous. `BLOCK`
    queries from row `query` on are multiplied with the rows of a group. Receive: `products`, (BLOCK, WIDTH)
    int32; `hits`, (BLOCK,) uint32, a bit for each row whose product is at least that of `bars`, (BLOCK,)
    int32.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        left, first, right, place, least, out, found = args
        kinds = signature.args
        pointer = {
            name: context.make_array(kind)(context, builder, value).data
            for name, kind, value in zip(
                ("left", "right", "least", "out", "found"),
                (kinds[0], kinds[2], kinds[4], kinds[5], kinds[6]),
                (left, right, least, out, found),
                strict=True,
            )
        }
        shape = cgutils.unpack_tuple(builder, context.make_array(kinds[0])(context, builder, left).shape)
        depth = shape[1]
        asked = builder.gep(pointer["left"], [builder.mul(first, depth)])
        stored = builder.gep(
            pointer["right"], [builder.mul(builder.mul(place, depth), ir.Constant(_LONG, WIDTH))]
        )
        sums = [[cgutils.alloca_once(builder, _SUMS) for _ in range(VECTORS)] for _ in range(BLOCK)]
        for row in sums:
            for one in row:
                builder.store(ir.Constant(_SUMS, None), one)
        with cgutils.for_range(builder, depth) as loop:
            begin = builder.gep(stored, [builder.mul(loop.index, ir.Constant(_LONG, WIDTH))])
            vectors = [
                builder.load(
                    builder.bitcast(builder.gep(begin, [ir.Constant(_LONG, LANES * v)]), _PAIRS.as_pointer()),
                    align=4,
                )
                for v in range(VECTORS)
            ]
            for q in range(BLOCK):
                at = builder.add(builder.mul(ir.Constant(_LONG, q), depth), loop.index)
                two = builder.load(builder.bitcast(builder.gep(asked, [at]), _PAIR.as_pointer()), align=4)
                pair = builder.shuffle_vector(
                    two,
                    ir.Constant(_PAIR, ir.Undefined),
                    ir.Constant(ir.VectorType(_WORD, 2 * LANES), [0, 1] * LANES),
                )
                for v in range(VECTORS):
                    more = _pairwise(builder, pair, vectors[v])
                    builder.store(builder.add(builder.load(sums[q][v]), more), sums[q][v])
        for q in range(BLOCK):
            bar = _splat(builder, builder.load(builder.gep(pointer["least"], [ir.Constant(_LONG, q)])))
            bits = ir.Constant(_WORD, 0)
            for v in range(VECTORS):
                total = builder.load(sums[q][v])
                start = builder.gep(pointer["out"], [ir.Constant(_LONG, q * WIDTH + v * LANES)])
                builder.store(total, builder.bitcast(start, _SUMS.as_pointer()), align=4)
                some = builder.bitcast(builder.icmp_signed(">=", total, bar), ir.IntType(LANES))
                bits = builder.or_(
                    bits, builder.shl(builder.zext(some, _WORD), ir.Constant(_WORD, v * LANES))
                )
            builder.store(bits, builder.gep(pointer["found"], [ir.Constant(_LONG, q)]))
        return context.get_dummy_value()

    return types.void(queries, types.int64, rows, types.int64, bars, products, hits), generate


@intrinsic
def first_bit(typing: Any, bits: Any) -> Any:
    """first_bit(bits): the number of the lowest bit that is set in the uint32 `bits`, which is not 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        flag = ir.IntType(1)
        kind = ir.FunctionType(_WORD, [_WORD, flag])
        count = cgutils.get_or_insert_function(builder.module, kind, "llvm.cttz.i32")
        return builder.zext(builder.call(count, [args[0], flag(1)]), _LONG)

    return types.uint64(types.uint32), generate


def _splat(builder: Any, number: Any) -> Any:
    empty = ir.Constant(_SUMS, ir.Undefined)
    first = builder.insert_element(empty, number, ir.Constant(_WORD, 0))
    return builder.shuffle_vector(first, empty, ir.Constant(_SUMS, None))


def _pairwise(builder: Any, a: Any, b: Any) -> Any:
    """Multiply pairs and add the two products of each: LLVM knows this pattern as one instruction."""
    wide = ir.VectorType(_WORD, 2 * LANES)
    product = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
    even, odd = (
        builder.shuffle_vector(
            product,
            ir.Constant(wide, ir.Undefined),
            ir.Constant(_SUMS, [2 * lane + one for lane in range(LANES)]),
        )
        for one in range(2)
    )
    return builder.add(even, odd)
