"""Starts one program of vlgraft from any directory. With --config it gets the arguments that its rule gives it.

`python scripts PROGRAM --config FILE [OVERLAY …]` takes the program's section of the configuration, the usual paths and the right
interpreter from there, prints the whole command and runs it. Options that follow are added and win. A program with
several jobs wants to know which: --stage, --benchmark, --model … Without --config every option is given by hand.

By hand:
  .venv/bin/python scripts                                                     # lists the programs
  .venv/bin/python scripts graft.graft --config config/demo.yaml
  .venv/bin/python scripts train.train --config config/demo.yaml --stage stage1
"""

import argparse
import ast
import os
import runpy
import shlex
import sys
from pathlib import Path

SCRIPTS_DIR = Path(__file__).resolve().parent
# Our own folder is found first, as the package `scripts`; its modules are not found by their bare names.
sys.path[0] = str(SCRIPTS_DIR.parent)


def programs() -> dict[str, str]:
    """The first line of each program's text, by the program's name: `subject.program`."""
    found = {}
    for path in sorted(SCRIPTS_DIR.glob("*/*.py")):
        text = path.read_text(encoding="utf-8")
        if '\nif __name__ == "__main__":' in text:
            found[f"{path.parent.name}.{path.stem}"] = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    return found


def run_with_usual_arguments(program: str, words: list[str]) -> None:
    """Replaces this process by the program with the arguments that its rule gives it, and `words` behind them."""
    from scripts.workflow.layout import Layout
    from scripts.workflow.read_configuration import read_configuration
    from scripts.workflow.steps import command, selectors

    parser = argparse.ArgumentParser(prog=f"scripts {program}", add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path, nargs="+", required=True)
    names = selectors(program)
    for name in names:
        parser.add_argument(f"--{name}", required=True)
    chosen, more = parser.parse_known_args(words)
    layout = Layout(read_configuration(*chosen.config))
    argv = [*command(layout, program, **{name: getattr(chosen, name) for name in names}), *more]
    print(shlex.join(argv), file=sys.stderr, flush=True)
    os.execv(argv[0], argv)


def print_programs(known: dict[str, str]) -> None:
    width = max(map(len, known))
    print("python scripts PROGRAM --help\npython scripts PROGRAM --config FILE\n")
    for program, text in known.items():
        print(f"  {program:{width}}  {text}")


def main() -> None:
    from scripts.common.errors import UserError
    from scripts.environments.surroundings import enter

    known = programs()
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print_programs(known)
        return
    program, words = sys.argv[1], sys.argv[2:]
    if program not in known:
        raise UserError(f"{program}: no such program; `python scripts` lists them")
    enter(program)
    if any(word == "--config" or word.startswith("--config=") for word in words):
        run_with_usual_arguments(program, words)
    sys.argv = [f"scripts {program}", *words]
    runpy.run_module(f"scripts.{program}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    from scripts.common.errors import run_program

    run_program(main)
