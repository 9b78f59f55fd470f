"""Makes an example of rows and questions of one's own, of the icons of matplotlib's toolbar: docs/your-own.md begins with it.

Written are, as a user might have them,

  pictures/*.png     the icons
  rows.jsonl         training rows: messages, as ms-swift writes them
  sharegpt.json      training rows: one array of conversations
  queries.csv        training rows: query and response
  questions.tsv      a benchmark in VLMEvalKit's form, with its pictures inside
  questions.jsonl    a benchmark as a list, which names its pictures

By hand: .venv/bin/python scripts demo.make_icons --output-dir mine
"""

import argparse
import base64
import csv
import json
import shutil
from pathlib import Path
from typing import Any

import matplotlib
import pandas

from scripts.common.errors import UserError, run_program
from scripts.common.logger import log
from scripts.demo.whole_directory import whole_directory
from scripts.questions.tables import write_benchmark

OUTPUT_NAMES = {"pictures", "rows.jsonl", "sharegpt.json", "queries.csv", "questions.tsv", "questions.jsonl"}

# What each button does, by the icon's file name.
MEANINGS = {
    "back": "go back to the last view",
    "filesave": "save the figure",
    "forward": "go on to the next view",
    "help": "show the help",
    "home": "show the first view again",
    "move": "move the axes",
    "subplots": "set the margins",
    "zoom_to_rect": "enlarge a part",
}
QUESTION = "What does this button do?"
LETTERS = "ABCD"


def options_of(name: str) -> tuple[dict[str, str], str]:
    """Four meanings by letter, and the letter of the right one, which goes round."""
    names = list(MEANINGS)
    place = names.index(name)
    right = LETTERS[place % len(LETTERS)]
    others = [MEANINGS[names[(place + step) % len(names)]] for step in range(1, len(LETTERS))]
    return {letter: MEANINGS[name] if letter == right else others.pop() for letter in LETTERS}, right


def write_rows(directory: Path) -> None:
    """The same small icons in three forms; paths are relative to each file's directory."""
    pictures = {name: f"pictures/{name}.png" for name in MEANINGS}
    with open(directory / "rows.jsonl", "w", encoding="utf-8") as file:
        for name, meaning in MEANINGS.items():
            messages = [{"role": "user", "content": f"<image>{QUESTION}"}, {"role": "assistant", "content": meaning}]
            file.write(json.dumps({"messages": messages, "images": [pictures[name]]}) + "\n")
    conversations: list[dict[str, Any]] = [
        {
            "conversations": [{"from": "human", "value": f"<image>\n{QUESTION}"}, {"from": "gpt", "value": meaning}],
            "image": pictures[name],
        }
        for name, meaning in MEANINGS.items()
    ]
    (directory / "sharegpt.json").write_text(json.dumps(conversations, indent=1), encoding="utf-8")
    with open(directory / "queries.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["query", "response", "images"])
        writer.writerows(
            [f"<image>Name this button: {QUESTION}", meaning, pictures[name]] for name, meaning in MEANINGS.items()
        )


def write_questions(directory: Path) -> None:
    """About the large icons, which no row shows: as a table and as a list."""
    rows, listed = [], []
    for number, name in enumerate(MEANINGS):
        path = f"pictures/{name}_large.png"
        options, right = options_of(name)
        image = base64.b64encode((directory / path).read_bytes()).decode()
        rows.append({"index": str(number), "image": image, "question": QUESTION, **options, "answer": right})
        listed.append({"question": QUESTION, "images": [path], "options": list(options.values()), "answer": right})
    write_benchmark(pandas.DataFrame(rows), directory / "questions.tsv")
    lines = [json.dumps(question) + "\n" for question in listed]
    (directory / "questions.jsonl").write_text("".join(lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output-dir", type=Path, required=True)
    arguments = parser.parse_args()
    icons_dir = Path(matplotlib.get_data_path()) / "images"
    names = [f"{name}{size}.png" for name in MEANINGS for size in ("", "_large")]
    if missing := [name for name in names if not (icons_dir / name).is_file()]:
        raise UserError(f"{icons_dir}: no {missing[0]} found; expected the icons of matplotlib 3.11; build .venv again")
    with whole_directory(arguments.output_dir, OUTPUT_NAMES) as directory:
        (directory / "pictures").mkdir()
        for name in names:
            shutil.copyfile(icons_dir / name, directory / "pictures" / name)
        write_rows(directory)
        write_questions(directory)
    log(f"{arguments.output_dir}: {len(MEANINGS)} rows in each of 3 files, {len(MEANINGS)} questions in each of 2")


if __name__ == "__main__":
    run_program(main)
