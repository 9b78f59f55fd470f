"""Starts one program of vlgraft from any directory, whatever lies there; without a name it lists the programs.

By hand:
  .venv/bin/python scripts                            # the list
  .venv/bin/python scripts graft.graft --config config/demo.yaml
"""

import ast
import runpy
import sys
from pathlib import Path

SCRIPTS_DIR = Path(__file__).resolve().parent


def programs() -> dict[str, str]:
    """First line of each program's text, by the program's name: `subject.program`."""
    found = {}
    for path in sorted(SCRIPTS_DIR.glob("*/*.py")):
        text = path.read_text(encoding="utf-8")
        if '\nif __name__ == "__main__":' in text:
            found[f"{path.parent.name}.{path.stem}"] = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    return found


def main() -> None:
    # Our own folder is found first, as the package `scripts`; modules are not found by their bare names.
    sys.path[0] = str(SCRIPTS_DIR.parent)
    known = programs()
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in known:
        width = max(map(len, known))
        lines = [f"  {program:{width}}  {text}" for program, text in known.items()]
        found = f"error: {name}: no such program\n\n" if name not in ("", "-h", "--help") else ""
        print(f"{found}python scripts PROGRAM --help\n\n" + "\n".join(lines), file=sys.stderr if found else sys.stdout)
        sys.exit(1 if found else 0)
    sys.argv[:2] = [f"scripts {name}"]
    runpy.run_module(f"scripts.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
