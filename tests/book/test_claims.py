"""The conclusions of the book: results that fit the code, pages that print them, and settings measured anew."""

import itertools
import json
import math
import re

import pytest

from book.claims import RESULTS, ROOT, all_claims, dependencies
from tests import affected

extension = pytest.importorskip("claims", reason="needs the extra `book`")
Result, results = extension.Result, extension.results

CLAIMS = all_claims()
STORED = json.loads(RESULTS.read_text(encoding="utf-8"))
TRAINING = {  # which take long
    "a_fixed_order_beats_saliency",
    "a_sparse_autoencoder_finds_most_features",
    "robust_training_cleans_the_gradient",
    "the_ablation_finds_both_tokens",
}


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


PROJECT = {
    "claims/__init__.py": "",
    "claims/part.py": """from house import lrp, saliency

SIZES = (1, 2)

def helper(x):
    return saliency(None, x)

@claim("page", above=0, size=SIZES)
def first(size):
    \"\"\"A sentence.\"\"\"
    return helper(size)  # a comment

def second(size):
    return lrp(None, helper(size))
""",
    "house/__init__.py": "from .gradient import saliency\nfrom .rules import lrp\n",
    "house/gradient.py": "def saliency(model, x):\n    return abs(x)\n\ndef smoothgrad(model, x):\n    return x / 3\n",
    "house/rules.py": """from . import tools
from .gradient import smoothgrad

class Rule:
    epsilon = 0.01

def lrp(model, x):
    return tools.scale(x) + Rule.epsilon
""",
    "house/tools.py": """FACTOR: int = 2

def scale(x):
    return FACTOR * x

def shift(x):
    return x + 1
""",
}


@pytest.fixture
def fingerprints(tmp_path, monkeypatch):
    """Of the claims `first` and `second` of the project, after an edit of one of its files."""
    monkeypatch.setattr(affected, "PACKAGES", ("claims", "house"))

    def measured(project):
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        for module in (affected, dependencies):
            monkeypatch.setattr(module, "ROOT", root)
        for known in (affected.module_file, affected.defined_in):
            known.cache_clear()
        for file, code in project.items():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_text(code)
        return [dependencies.fingerprint(root / "claims/part.py", name, "") for name in ("first", "second")]

    yield measured
    affected.module_file.cache_clear()
    affected.defined_in.cache_clear()


@pytest.mark.parametrize(
    ("file", "old", "new", "moved"),
    [
        ("claims/part.py", "A sentence", "Another", []),
        ("claims/part.py", "  # a comment", "", []),
        ("claims/part.py", "above=0", "above=1", []),
        (
            "claims/part.py",
            "(1, 2)",
            "(1, 3)",
            [],
        ),  # another setting, whose value is measured; those of the others stay
        ("claims/part.py", "return lrp(None, ", "return lrp(1, ", ["second"]),
        ("claims/part.py", "saliency(None", "saliency(1", ["first", "second"]),
        ("claims/part.py", "helper(size)  #", "helper(-size)  #", ["first"]),
        ("house/gradient.py", "abs(x)", "abs(x) + 1", ["first", "second"]),
        ("house/gradient.py", "x / 3", "x / 4", []),  # which is imported beside, and not used
        ("house/rules.py", "0.01", "0.02", ["second"]),
        ("house/tools.py", "= 2", "= 3", ["second"]),
        ("house/tools.py", "x + 1", "x + 2", []),
    ],
)
def test_a_claim_is_measured_again_where_code_that_it_reaches_changed(file, old, new, moved, fingerprints):
    assert PROJECT[file].count(old) == 1
    before, after = fingerprints(PROJECT), fingerprints(PROJECT | {file: PROJECT[file].replace(old, new)})
    assert [name for name, a, b in zip(("first", "second"), before, after, strict=True) if a != b] == moved


CLAIMS_CODE = PROJECT["claims/part.py"]


@pytest.mark.parametrize(
    "code",
    [
        CLAIMS_CODE.replace("import lrp,", "import lrp as rule,").replace("return lrp(", "return rule("),
        CLAIMS_CODE.replace("lrp, ", "", 1).replace("    return lrp(", "    from house import lrp\n    return lrp("),
        CLAIMS_CODE.replace("lrp, ", "", 1)
        .replace("return lrp(", "return house.lrp(")
        .replace("\n", "\nimport house\n", 1),
        CLAIMS_CODE.replace("lrp, ", "", 1)
        .replace("return lrp(", "return house.rules.lrp(")
        .replace("\n", "\nimport house\n", 1),
        CLAIMS_CODE.replace("lrp, ", "rules, ", 1).replace("return lrp(", "return rules.lrp("),
        CLAIMS_CODE.replace("lrp, ", "rules, ", 1).replace("return lrp(", "return vars(rules)['lrp']("),
        CLAIMS_CODE.replace("lrp, ", "", 1).replace(
            "SIZES", "try:\n    from house import lrp\nfinally:\n    pass\n\nSIZES", 1
        ),
    ],
    ids=["another name", "in the function", "of the package", "through it", "of the module", "all of it", "in a try"],
)
def test_code_is_reached_through_every_form_of_import(code, fingerprints):
    before = fingerprints(PROJECT | {"claims/part.py": code})
    after = fingerprints(
        {"claims/part.py": code} | {k: v.replace("= 2", "= 3") for k, v in PROJECT.items() if k != "claims/part.py"}
    )
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False]


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
    assert (depends.turned("a"), depends.turned("b")) == (0, pytest.approx(2 / 3))
    assert depends.decisive() == "b"
    assert Result(stored | {"values": {"native": [-1] * 6}}).verdict == "fails"


def test_the_page_of_all_claims_finds_as_often_as_the_verdicts_what_an_option_turns():
    """Both count pairs; here they are tried one by one."""
    cells = re.findall(
        r"^```\{code-cell\} python\n(.*?)^```", (ROOT / "book/since/how_firm.md").read_text(), re.M | re.S
    )
    (code,) = (cell for cell in cells if "def turned" in cell)
    page = {"stored": STORED, "true": {name: result.true for name, result in results().items()}}
    exec(code.partition("\nname = ")[0], page)
    for name, result in results().items():
        settings = list(itertools.product(*(range(len(values)) for values in result.options.values())))
        true = dict(zip(settings, result.true, strict=True))
        for axis, option in enumerate(result.options):
            pairs = [
                true[s] != true[(*s[:axis], other, *s[axis + 1 :])]
                for s in settings
                for other in range(s[axis] + 1, len(result.options[option]))
            ]
            expected = sum(pairs) / len(pairs) if pairs else 0
            assert page["turned"](name, option) == pytest.approx(expected) == result.turned(option), (name, option)


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
    """Of the settings in which a claim is true, the one where it is so by the least; if none is, of those in which it is not.

    Only settings with the page's own training are asked, since another takes long.
    """
    result, values = results()[name], list(zip(*STORED[name]["values"].values(), strict=True))
    settings = list(CLAIMS[name].settings())
    own = [i for i, setting in enumerate(settings) if setting.get("training") == settings[0].get("training")]
    true = [i for i in own if result.true[i] or not any(result.true)]
    return min(true, key=lambda i: min(abs(v - bound) for v in values[i] for bound in (result.above, result.below)))


@pytest.mark.slow
@pytest.mark.trains  # with the kernels of an old processor as well
@pytest.mark.parametrize(
    "name",
    [
        # One process does those that share a training.
        pytest.param(name, marks=[pytest.mark.xdist_group("training")] * ("training" in claim.options))
        for name, claim in CLAIMS.items()
        if name not in TRAINING
    ],
)
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
