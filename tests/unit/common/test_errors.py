"""How a program fails."""

import subprocess
import sys
from pathlib import Path

import pytest

FULL = """
import sys
sys.path.insert(0, ".")
from scripts.common.errors import run_program
def main():
    {line}
run_program(main)
"""


def run(root: Path, line: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", FULL.format(line=line)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "open('/dev/full', 'w', buffering=1).write('a\\n')",
            "error: a file that <string>:6 (main) was writing: No space",
        ),
        (
            "raise OSError(122, 'Disk quota exceeded', '/scratch/a')",
            "error: /scratch/a: Disk quota exceeded; make room",
        ),
    ],
)
def test_a_full_disk_is_one_line_that_says_what_to_do(root: Path, line: str, expected: str) -> None:
    finished = run(root, line)
    assert finished.returncode == 1
    assert finished.stderr.startswith(expected), finished.stderr
    assert finished.stderr.endswith("give the same command again\n")
    assert finished.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("open('/tmp')", "error: /tmp: Is a directory; expected a file or directory of this program's there"),
        ("open('/etc/passwd/a')", "error: /etc/passwd/a: Not a directory; expected"),
        ("open('a' * 256)", f"error: {'a' * 256}: File name too long; expected"),
    ],
)
def test_something_else_in_the_place_of_a_file_is_one_line(root: Path, line: str, expected: str) -> None:
    finished = run(root, line)
    assert finished.returncode == 1 and finished.stderr.startswith(expected) and finished.stderr.count("\n") == 1


def test_half_a_character_in_a_message_is_written_out(root: Path) -> None:
    line = "from scripts.common.errors import UserError; raise UserError('a' + chr(0xd800))"
    assert run(root, line).stderr == "error: a\\ud800\n"


def test_another_fault_of_the_system_keeps_its_traceback(root: Path) -> None:
    finished = run(root, "open('/nowhere/a')")
    assert finished.returncode == 1
    assert "Traceback" in finished.stderr and "No such file or directory: '/nowhere/a'" in finished.stderr


def test_a_password_in_a_message_is_hidden(root: Path) -> None:
    line = "from scripts.common.errors import UserError; raise UserError('http://me:pw@hub.example: no answer')"
    assert run(root, line).stderr == "error: http://(secret)@hub.example: no answer\n"
