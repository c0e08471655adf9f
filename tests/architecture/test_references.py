"""A paper is cited in one way: the same number of arXiv has the same authors, year and title everywhere."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2] / "src" / "levelhead"


def test_one_paper_has_one_reference():
    forms = defaultdict(lambda: defaultdict(list))
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Reference":
                given = {word.arg: word.value for word in node.keywords}
                if isinstance(given.get("arxiv"), ast.Constant):
                    forms[given["arxiv"].value][ast.unparse(node)].append(path.name)
    assert len(forms) > 40
    several = {number: dict(of) for number, of in forms.items() if len(of) > 1}
    assert not several
