"""Which operators go to the Edge TPU together.

TFLite hands a delegate one node subset at a time; the subsets are found by `PartitionGraphIntoIndependentNodeSubsets`
(TensorFlow, `lite/graph_info.cc`), and the compiler keeps the first that the Edge TPU can take. So mapping does not
stop at a place in the list: what does not depend on an operator left on the CPU is still mapped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_quantize.edgetpu.graph import Graph


def first_subset(graph: Graph, able: list[bool]) -> set[int]:
    """Operators of the first subset that the Edge TPU can take.

    Args:
        graph: the model.
        able: for each operator, whether the Edge TPU can take it.

    Returns:
        Indices of operators; empty when there is none.

    """
    made = {index for op in graph.ops for index in op.outputs}
    waiting: dict[int, list[int]] = {}
    missing = [0] * len(graph.ops)
    for number, op in enumerate(graph.ops):
        for index in set(op.inputs) & made:
            waiting.setdefault(index, []).append(number)
            missing[number] += 1
    ready = [number for number, count in enumerate(missing) if not count]
    while ready:
        kind, subset, later = able[min(ready)], set[int](), list[int]()
        while ready:
            number = ready.pop()
            if able[number] != kind:
                later.append(number)
                continue
            subset.add(number)
            for index in set(graph.ops[number].outputs):
                for reader in waiting.pop(index, ()):
                    missing[reader] -= 1
                    if not missing[reader]:
                        ready.append(reader)
        if kind:
            return subset
        ready = later
    return set()
