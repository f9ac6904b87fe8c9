"""A virtual environment for each contender, made the first time that it is measured.

Only the contender and its requirements are installed. torch, transformers and the rest of what the model needs are the
project's own: a .pth file puts its site-packages behind the contender's, whose versions win. A contender that needs a
repair before anything else is imported has it in `requirements/NAME_site.py`.
"""

import hashlib
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

REQUIREMENTS: Final = Path(__file__).parent / "requirements"
VENVS: Final = Path(__file__).parents[1] / ".venvs"


class NotInstalled(Exception):
    """The contender cannot be had here; the message says why, in one line."""


def python_of(name: str) -> Path:
    """The interpreter of a contender's environment; made anew when its pinned requirements changed.

    Raises:
        NotInstalled: uv is missing, or a requirement cannot be had.
    """
    wanted, repair = REQUIREMENTS / f"{name}.txt", REQUIREMENTS / f"{name}_site.py"
    folder = VENVS / name
    python, mark = folder / "bin" / "python", folder / ".forebay-bench"
    shared = sysconfig.get_path("purelib")
    repairing = repair.read_bytes() if repair.is_file() else b""
    state = hashlib.sha256(wanted.read_bytes() + repairing + shared.encode()).hexdigest()
    if mark.is_file() and mark.read_text() == state:
        return python
    uv = shutil.which("uv") or str(Path(__file__).parents[2] / ".tools" / "bin" / "uv")
    print(f"installing {name} (once) ...", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)])
    _run([uv, "pip", "install", "--quiet", "--python", str(python), "-r", str(wanted)])
    own = next((folder / "lib").glob("python3*/site-packages"))
    (own / "forebay-bench.pth").write_text(shared + "\n" + ("import forebay_bench_site\n" if repairing else ""))
    (own / "forebay_bench_site.py").write_bytes(repairing)
    mark.write_text(state)
    return python


def _run(command: list[str]) -> None:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NotInstalled(f"uv cannot be run: {error}") from error
    if ended.returncode:
        said = ended.stderr.strip().splitlines() or ["no reason given"]
        raise NotInstalled(f"{' '.join(command[1:3])} failed: {said[-1][:200]}")
