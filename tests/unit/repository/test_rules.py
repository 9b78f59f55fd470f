"""In the shell text of a rule every placeholder is quoted: paths of the user's hold spaces, quotes and $( )."""

import io
import itertools
import string
import tokenize
from pathlib import Path

import pytest

# A whole command, quoted word by word by these functions of rules/common.smk.
QUOTED_COMMAND = "params.run"
QUOTING = ("run(", "build(", "lambda wildcards: shell_command(")

RULES = sorted(path.name for path in (Path(__file__).resolve().parents[3] / "rules").glob("*.smk"))


def shell_texts(rules: str) -> list[str]:
    """The text of each `shell:`."""
    tokens = [
        token
        for token in tokenize.generate_tokens(io.StringIO(rules).readline)
        if token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.COMMENT)
    ]
    texts = []
    for number, (name, colon) in enumerate(itertools.pairwise(tokens)):
        if name.string == "shell" and colon.string == ":":
            parts = []
            for token in tokens[number + 2 :]:
                if token.type != tokenize.STRING:
                    break
                parts.append(token.string)
            assert parts, f"line {name.start[0]}: expected the text of a command"
            texts.append("".join(eval(part) for part in parts))
    return texts


def unquoted_placeholders(rules: str) -> list[str]:
    """Placeholders that a shell would take apart."""
    found = []
    for text in shell_texts(rules):
        for _, field, spec, _ in string.Formatter().parse(text):
            if field is not None and field != QUOTED_COMMAND and not (spec or "").endswith("q"):
                found.append("{" + field + "}")
    return found


def unquoted_commands(rules: str) -> list[str]:
    """Values of `run=` that no quoting function makes."""
    values = [line.strip().removeprefix("run=") for line in rules.splitlines() if line.strip().startswith("run=")]
    return [value for value in values if not value.startswith(QUOTING)]


@pytest.mark.parametrize("name", RULES)
def test_every_placeholder_is_quoted(root: Path, name: str) -> None:
    rules = (root / "rules" / name).read_text(encoding="utf-8")
    assert unquoted_placeholders(rules) == []
    assert unquoted_commands(rules) == []


def test_all_rules_that_run_a_program_were_looked_at(root: Path) -> None:
    texts = {name: shell_texts((root / "rules" / name).read_text(encoding="utf-8")) for name in RULES}
    num_shells = {name: (root / "rules" / name).read_text(encoding="utf-8").count("shell:") for name in RULES}
    assert {name: len(found) for name, found in texts.items()} == num_shells
    assert sum(num_shells.values()) > 20


@pytest.mark.parametrize(
    ("shell", "found"),
    [
        ('"{params.run} | tee {log}"', ["{log}"]),
        ('"{params.run} --a {input.b:q}"\n        " > {output} 2>&1"', ["{output}"]),
        ('"x {wildcards.stage} {threads} {{no}} {log:q}"', ["{wildcards.stage}", "{threads}"]),
        ('"{params.run} {params.other}"', ["{params.other}"]),
        ('"{params.run} 2>&1 | tee {log:q}"', []),
    ],
)
def test_what_is_not_quoted_is_found(shell: str, found: list[str]) -> None:
    assert unquoted_placeholders(f"rule a:\n    output:\n        'b',\n    shell:\n        {shell}\n") == found


def test_a_command_that_nothing_quotes_is_found() -> None:
    assert unquoted_commands('    params:\n        run=f"python {x}",\n') == ['f"python {x}",']
