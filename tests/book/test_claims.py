"""The conclusions of the book: results that fit the code, pages that print them, and settings measured anew."""

import json
import math
import re

import pytest

from book.claims import RESULTS, ROOT, all_claims, dependencies

extension = pytest.importorskip("claims", reason="needs the extra `book`")
Result, results = extension.Result, extension.results

CLAIMS = all_claims()
STORED = json.loads(RESULTS.read_text(encoding="utf-8"))
TRAINING = {"a_fixed_order_beats_saliency", "robust_training_cleans_the_gradient"}  # which take long


def test_the_results_are_of_this_code():
    stale = [name for name, claim in CLAIMS.items() if STORED.get(name, {}).get("fingerprint") != claim.fingerprint]
    assert not stale, f"measured with different code: run python -m book.claims {' '.join(stale)}"
    assert set(STORED) == set(CLAIMS)
    for name, claim in CLAIMS.items():
        stored = STORED[name]
        assert (stored["page"], stored["sentence"]) == (claim.page, claim.sentence)
        assert (stored["above"], stored["below"]) == (claim.above, claim.below)
        assert stored["options"] == json.loads(json.dumps(claim.options))
        assert all(len(values) == len(list(claim.settings())) for values in stored["values"].values())


CODE = """from interp_lab import lrp, saliency

SIZES = (1, 2)

def helper(x):
    return saliency(None, x)

@claim("page", above=0, size=SIZES)
def first(size):
    \"\"\"A sentence.\"\"\"
    return helper(size)  # a comment

def second(size):
    return lrp(None, helper(size))
"""


@pytest.mark.parametrize(
    ("old", "new", "moved"),
    [
        ("A sentence", "Another", ""),
        ("  # a comment", "", ""),
        ("above=0", "above=1", ""),
        ("(1, 2)", "(1, 3)", ""),  # another setting, whose value is measured; the values of the others stay
        ("return lrp(None, ", "return lrp(1, ", "second"),
        ("saliency(None", "saliency(1", "first second"),
        ("helper(size)  #", "helper(-size)  #", "first"),
    ],
)
def test_a_claim_is_measured_again_where_its_own_code_changed(old, new, moved, tmp_path):
    assert CODE.count(old) == 1
    (tmp_path / "old.py").write_text(CODE)
    (tmp_path / "new.py").write_text(CODE.replace(old, new))
    for name in ("first", "second"):
        before, after = (dependencies.fingerprint(tmp_path / file, name, "") for file in ("old.py", "new.py"))
        assert (before != after) == (name in moved.split())


IMPORTS = {
    "as it is": CODE,
    "by another name": CODE.replace("import lrp,", "import lrp as rule,").replace("return lrp(", "return rule("),
    "in the function": CODE.replace("    return lrp(", "    from interp_lab import lrp\n    return lrp(").replace(
        "lrp, ", "", 1
    ),
    "of the package": CODE.replace("lrp, ", "", 1)
    .replace("return lrp(", "return interp_lab.lrp(")
    .replace("SIZES", "import interp_lab\n\nSIZES", 1),
    "in a try": CODE.replace("lrp, ", "", 1).replace(
        "SIZES", "try:\n    from interp_lab import lrp\nfinally:\n    pass\n\nSIZES", 1
    ),
}


@pytest.mark.parametrize("source", IMPORTS.values(), ids=IMPORTS.keys())
def test_a_claim_is_measured_again_where_a_method_of_its_own_changed(source, tmp_path, monkeypatch):
    (tmp_path / "old.py").write_text(source)
    before = [dependencies.fingerprint(tmp_path / "old.py", name, "") for name in ("first", "second")]
    code = dependencies._code
    monkeypatch.setattr(dependencies, "_code", lambda file: code(file) + " " * file.endswith("lrp/relevance.py"))
    after = [dependencies.fingerprint(tmp_path / "old.py", name, "") for name in ("first", "second")]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False]


def test_every_claim_stands_once_on_its_page():
    printed = []
    for path in sorted((ROOT / "book").rglob("*.md")):
        for name in re.findall(r"^```\{claim\} (\w+)$", path.read_text(encoding="utf-8"), re.M):
            printed.append((path.relative_to(ROOT / "book").with_suffix("").as_posix(), name))
    assert sorted(printed) == sorted((claim.page, name) for name, claim in CLAIMS.items())


def test_one_setting_decides_the_verdict_and_where_it_breaks():
    stored = {"page": "", "sentence": "", "above": 0, "below": math.inf, "options": {"a": [1, 2], "b": ["x", "y", "z"]}}
    holds = Result(stored | {"values": {"native": [1, 2, 3, 4, 5, 6], "default": [1, 2, 3, 4, 5, 6]}})
    assert holds.verdict == "holds"
    assert holds.counted() == "all 6 settings"
    assert (holds.low, holds.high) == (1, 6)
    depends = Result(stored | {"values": {"native": [1, 2, 3, 4, 5, 6], "default": [1, 2, -3, 4, 5, 0]}})
    assert depends.verdict == "depends"
    assert depends.counted() == "4 of 6 settings"
    assert depends.shares("a") == {1: (2, 3), 2: (2, 3)}
    assert depends.shares("b") == {"x": (2, 2), "y": (2, 2), "z": (0, 2)}
    assert depends.decisive() == "b"
    assert Result(stored | {"values": {"native": [-1] * 6}}).verdict == "fails"


@pytest.fixture
def printed(render):
    """A function from a claim and the verdict that its page expects to the page, and the warnings."""

    def run(name: str, verdict: str, page: str) -> tuple[str, str]:
        pages = {
            f"book/{page}.md": f"# Page\n\n```{{claim}} {name}\n:verdict: {verdict}\n```\n",
            "book/since/how_firm.md": "# All\n",
        }
        return render(pages, ["myst_parser", "claims"], "text")

    return run


def test_a_page_prints_a_claim_with_its_range(printed):
    name = next(name for name, result in results().items() if result.verdict == "depends")
    result = results()[name]
    page, warnings = printed(name, "depends", result.page)
    words = " ".join(page.split())
    assert "the claim" not in warnings
    assert result.sentence in words
    assert f"True in {result.counted()}" in words
    assert "decides most: " in words


@pytest.mark.parametrize("expected", ["holds", "fails"])
def test_a_page_that_expects_another_verdict_does_not_build(printed, expected):
    name, result = next((name, result) for name, result in results().items() if result.verdict == "depends")
    assert f"the claim '{name}' depends on the options" in printed(name, expected, result.page)[1]


def test_a_claim_stands_on_no_other_page_and_has_to_exist(printed):
    name, result = next(iter(results().items()))
    assert f"belongs to {result.page}" in printed(name, result.verdict, "part9/elsewhere")[1]
    assert "no claim 'no_such_claim'" in printed("no_such_claim", "holds", result.page)[1]


def nearest_to_its_bound(name: str) -> int:
    """Of the settings in which a claim is true, the one where it is so by the least; if none is, of those in which it is not."""
    result, values = results()[name], list(zip(*STORED[name]["values"].values(), strict=True))
    true = [i for i, t in enumerate(result.true) if t] if any(result.true) else range(len(values))
    return min(true, key=lambda i: min(abs(v - bound) for v in values[i] for bound in (result.above, result.below)))


@pytest.mark.slow
@pytest.mark.trains  # with the kernels of an old processor as well
@pytest.mark.parametrize("name", [name for name in CLAIMS if name not in TRAINING])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_settings_measured_anew(name):
    """The page's own setting, and for a claim that holds also the one in which it nearly does not."""
    claim, result, settings = CLAIMS[name], results()[name], list(CLAIMS[name].settings())
    for i in {0, nearest_to_its_bound(name)} if result.verdict == "holds" else {0}:
        value = float(claim.measure(**settings[i]))
        assert claim.holds(value) == result.true[i], settings[i]


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", sorted(TRAINING))
def test_settings_that_train_measured_anew(name):
    test_settings_measured_anew(name)
