"""What the Edge TPU compiler would make of a model: every operator's verdict, and the memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge.errors import SourceError
from edge_quantize.edgetpu.budget import Need, measure
from edge_quantize.edgetpu.executable import EDGETPU_OP
from edge_quantize.edgetpu.graph import open_model, read_graph
from edge_quantize.edgetpu.partition import first_subset
from edge_quantize.edgetpu.refusal import refusal
from edge_quantize.edgetpu.rules import MAPPED, SUBGRAPH, Verdict, judge

if TYPE_CHECKING:
    from pathlib import Path

    from edge_quantize.edgetpu.graph import Graph


@dataclass(frozen=True, slots=True)
class Finding:
    """One operator, in graph order."""

    name: str
    version: int
    status: str
    why: str

    @property
    def mapped(self) -> bool:
        """Does it run on the Edge TPU."""
        return self.status == MAPPED


@dataclass(frozen=True, slots=True)
class Report:
    """One model."""

    findings: tuple[Finding, ...]
    need: Need
    refused: str | None
    """Why the compiler would refuse the whole file."""

    @property
    def mapped(self) -> int:
        """Number of operators on the Edge TPU."""
        return sum(finding.mapped for finding in self.findings)

    @property
    def cpu_ops(self) -> list[str]:
        """Names of the operators left to the CPU, in graph order."""
        return [finding.name for finding in self.findings if not finding.mapped]


def check(graph: Graph) -> Report:
    """Predict what the compiler does with a model."""
    refused = refusal(graph)
    verdicts = [judge(graph, op) for op in graph.ops]
    able = [verdict.status == MAPPED and refused is None for verdict in verdicts]
    chosen = first_subset(graph, able)
    findings = []
    for number, (op, verdict) in enumerate(zip(graph.ops, verdicts, strict=True)):
        said = verdict
        if verdict.status == MAPPED and number not in chosen:
            said = Verdict(SUBGRAPH, "comes after an operator on the CPU" if refused is None else "the file is refused")
        findings.append(Finding(op.name, op.version, *said))
    return Report(tuple(findings), measure(graph, chosen), refused)


def check_file(path: Path) -> Report:
    """Predict what the compiler does with a file.

    Raises:
        SourceError: no TFLite model (names the offset), or one that is compiled already.

    """
    graph = open_model(path, read_graph)
    if any(op.name == EDGETPU_OP for op in graph.ops):
        msg = f"{path}: compiled already: give the file it was made of, or read this one with 'edge-quantize inspect'"
        raise SourceError(msg)
    return check(graph)
