"""The parts of a program as `similarity` compares them: runs in the sandbox, where students' code is parsed.

Standard library and torch only, like all that is loaded there.
"""

import ast
import hashlib
import json

import torch
from torch import Tensor

LEAST = 6  # nodes of a part: smaller ones are in every program


def shapes(cells: Tensor) -> Tensor:
    """Of each part of at least ``LEAST`` nodes of a notebook's code its fingerprint, its cell, and the lines of the statement around it.

    Args:
        cells: the JSON text of the code cells by name, as bytes, (size,), uint8.

    Returns:
        (parts, 4), int64.
    """
    import extract

    sources = json.loads(bytes(cells.tolist()))
    numbers = {name: number for number, name in enumerate(sources)}
    statements, _ = extract.parse(sources)
    rows: list[tuple[int, ...]] = []
    for statement in statements:
        found: set[int] = set()
        fingerprint(statement.node, found)
        node = statement.node
        rows += [(part, numbers[statement.cell], node.lineno, node.end_lineno or 0) for part in sorted(found)]
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 4)


def fingerprint(node: ast.AST, found: set[int]) -> tuple[int, int]:
    """Fingerprint and size of a syntax tree without the names of variables, functions and arguments, docstrings and annotations.

    Those of its expressions and statements of at least ``LEAST`` nodes are added to ``found``.
    """
    parts, size = [type(node).__name__], 1
    for name, value in ast.iter_fields(node):
        if isinstance(node, ast.Name | ast.arg) or name in (
            "name",
            "ctx",
            "annotation",
            "returns",
            "type_comment",
            "kind",
        ):
            continue
        parts.append(name)
        for each in value if isinstance(value, list) else [value]:
            match each:
                case ast.Expr(ast.Constant(str())):
                    continue
                case ast.AST():
                    inner, nodes = fingerprint(each, found)
                    parts.append(str(inner))
                    size += nodes
                case _:
                    parts.append(repr(each))
    part = int.from_bytes(hashlib.blake2b("\n".join(parts).encode(), digest_size=8).digest(), "big", signed=True)
    if size >= LEAST and isinstance(node, ast.expr | ast.stmt):
        found.add(part)
    return part, size
