"""Build the textbook: run the pages that changed, several at a time, then render the site (`python book/build.py`).

With the names of pages (`python book/build.py book/part2/lrp.md`) these alone are run, and nothing is rendered or kept.

Outputs are kept in jupyter-cache under _build/. Its key is the code of a page alone, so a page would keep its old
outputs when the package changes under it: the whole cache is dropped when the fingerprint of everything else that
pages read has changed.
"""

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import yaml
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution
from jupyter_cache.readers import get_reader
from myst_nb.core.read import is_myst_markdown_notebook
from nbformat import NotebookNode
from sphinx_external_toc.parsing import parse_toc_yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a script looks in its own folder only
from book.kernels import Kernels  # noqa: E402

EXERCISES = {"glob": "exercises/*"}  # their entry in the table of contents
MAX_WORKERS = 4  # each page is a kernel with torch in it, several hundred MB
ENVIRONMENT = {  # of the kernels
    # no contention between pages, and sums in the same order on every machine
    "OMP_NUM_THREADS": "1",
    # glibc keeps the freed memory of a pass for the next one: 15 % of the time of a pass over 128 images
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**26),
    # Pages take few steps, to be quick; what that costs stands on the page of integrated gradients.
    "PYTHONWARNINGS": "ignore:integrated gradients miss",
}


def data_folders() -> list[Path]:
    """The folders of data and weights outside the project that pages may read."""
    torch_home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    folders = [Path(torch_home).expanduser() / "hub" / "checkpoints"]
    if os.environ.get("INTERP_LAB_DATA"):
        folders.append(Path(os.environ["INTERP_LAB_DATA"]))
    return folders


def files_in(folder: Path) -> list[Path]:
    """All files below a folder, none if it is absent, in a fixed order and without compiled Python."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)


def fingerprint(root: Path) -> str:
    """Hash of what pages depend on beside their own code: Python, packages, `interp_lab`, book/data, modules beside pages, external data.

    External data enter by relative path and size, since hashing their contents would take longer than the build.
    """
    packages = {f"{d.name}=={d.version}" for d in importlib.metadata.distributions()}
    digest = hashlib.sha256(repr((sys.version, sorted(packages))).encode())
    beside = sorted((root / "book" / "since").glob("*.py"))
    for path in (*files_in(root / "interp_lab"), *files_in(root / "book" / "data"), *beside):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    for folder in data_folders():
        for path in files_in(folder):
            digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
    return digest.hexdigest()


def drop_stale_cache(root: Path) -> None:
    """Delete the outputs of all pages if they were made with another fingerprint."""
    cache = root / "_build" / ".jupyter_cache"
    stamp, current = cache / "fingerprint", fingerprint(root)
    if not stamp.exists() or stamp.read_text() != current:
        if cache.exists():
            print("code, packages or data changed: every page runs again", flush=True)
        shutil.rmtree(cache, ignore_errors=True)
        cache.mkdir(parents=True)
        stamp.write_text(current)


def configuration(root: Path) -> dict:
    return yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))


def table_of_contents(root: Path) -> Path:
    """The table of contents of the edition: in the instructor's, each solution stands under its exercise."""
    toc = root / "_toc.yml"
    edition = configuration(root).get("sphinx", {}).get("config", {}).get("course_edition", "public")
    if edition not in ("public", "instructor"):
        raise ValueError(f"course_edition in _config.yml must be public or instructor, got {edition!r}")
    if edition == "public":
        return toc

    exercises = [
        {"file": f"exercises/{name}", "sections": [{"file": f"solutions/{name}/solution", "title": "Solution"}]}
        for name in sorted(path.stem for path in (root / "exercises").glob("*.ipynb"))
    ]

    def with_solutions(entry: object) -> object:
        if isinstance(entry, list):
            return [new for e in entry for new in (exercises if e == EXERCISES else [with_solutions(e)])]
        return {key: with_solutions(value) for key, value in entry.items()} if isinstance(entry, dict) else entry

    path = root / "_build" / "instructor_toc.yml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(with_solutions(yaml.safe_load(toc.read_text(encoding="utf-8")))), encoding="utf-8")
    return path


def notebooks(root: Path) -> Iterator[tuple[Path, NotebookNode]]:
    """The pages of the table of contents that the configuration lets run, as (path, notebook)."""
    excluded = configuration(root)["execute"]["exclude_patterns"]
    for name in parse_toc_yaml(root / "_toc.yml"):
        path = next(p for p in (root / f"{name}.md", root / f"{name}.ipynb", root / name) if p.is_file())
        if any(path.relative_to(root).match(pattern) for pattern in excluded):
            continue
        if path.suffix == ".ipynb":
            yield path, get_reader({"type": "plugin", "name": "nbformat"})(str(path))
        elif is_myst_markdown_notebook(path.read_text(encoding="utf-8")):
            yield path, get_reader({"type": "plugin", "name": "myst_nb_md"})(str(path))


def execute(root: Path) -> bool:
    """Run the pages without a cached output and cache theirs; True if none failed."""
    drop_stale_cache(root)
    cache = get_cache(str(root / "_build" / ".jupyter_cache"))
    pending = {}
    for path, notebook in notebooks(root):
        try:
            cache.match_cache_notebook(notebook)
        except KeyError:
            pending[path] = notebook

    def keep(bundle: CacheBundleIn) -> None:
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)

    return run_pages(root, pending, keep)


def run_pages(
    root: Path, pending: dict[Path, NotebookNode], keep: Callable[[CacheBundleIn], object] = lambda bundle: None
) -> bool:
    """Run pages side by side and hand what they give to ``keep``; report each with its time; True if none failed."""
    timeout = configuration(root)["execute"]["timeout"]
    os.environ |= ENVIRONMENT
    print(f"{len(pending)} pages to run", flush=True)

    def run(path: Path) -> CacheBundleIn:
        quiet = ["--log-level=ERROR"]  # ipykernel warns of its local TCP socket at every start
        options = {"extra_arguments": quiet, "kernel_manager_class": manager}
        result = single_nb_execution(pending[path], str(path.parent), timeout, False, **options)
        if result.err:
            raise result.err
        return CacheBundleIn(result.nb, str(path), data={"execution_seconds": result.time})

    failed = 0
    with Kernels() as kernels, ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1)) as pool:
        manager = kernels.manager
        futures = {pool.submit(run, path): path for path in reversed(pending)}  # the last takes long, the first little
        for done, future in enumerate(as_completed(futures), 1):
            name = futures[future].relative_to(root).as_posix()
            if error := future.exception():
                failed += 1
                print(f"[{done}/{len(pending)}]  FAILED  {name}\n{error}", flush=True)
            else:
                bundle = future.result()
                keep(bundle)
                print(f"[{done}/{len(pending)}] {bundle.data['execution_seconds']:6.1f} s  {name}", flush=True)
    return not failed


def render(root: Path) -> bool:
    """Render the site from the cache with warnings as errors; True if there was none."""
    # leftovers of removed pages; and a page read before does not repeat its warnings, which would hide an error
    for leftover in ("html", ".doctrees", "jupyter_execute"):
        shutil.rmtree(root / "_build" / leftover, ignore_errors=True)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(root)]
    command += ["--toc", str(table_of_contents(root))]
    strict = ["-W", "--keep-going", "-n", "-q"]
    if subprocess.run([*command, *strict], stdout=subprocess.DEVNULL).returncode:  # warnings come on stderr
        return False
    remove_unused(root / "_build" / "html")
    return True


def remove_unused(site: Path) -> None:
    """Delete what the theme and MathJax bring and no page asks for: source maps, and bundles for other input and output."""
    asked = {
        name for page in site.rglob("*.html") for name in re.findall(r"mathjax/([\w-]+\.js)", page.read_text("utf-8"))
    }
    bundles = {path for path in (site / "_static" / "mathjax").glob("*-*.js") if path.name not in asked}
    for path in bundles | set(site.rglob("*.map")):
        path.unlink()


def main() -> int:
    """Run and render; 0 if every page ran and nothing warned."""
    start = time.perf_counter()
    if names := sys.argv[1:]:
        pages = {path.relative_to(ROOT).as_posix(): notebook for path, notebook in notebooks(ROOT)}
        if unknown := set(names) - set(pages):
            print(f"no pages that run: {', '.join(unknown)}", file=sys.stderr)
            return 2
        return int(not run_pages(ROOT, {ROOT / name: pages[name] for name in names}))
    if not execute(ROOT):
        print("the site was not built: mend the pages that failed", file=sys.stderr)
        return 1
    if not render(ROOT):
        print("the site has warnings, listed above; each counts as an error", file=sys.stderr)
        return 1
    print(f"built in {time.perf_counter() - start:.0f} s: open {ROOT / '_build' / 'html' / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
