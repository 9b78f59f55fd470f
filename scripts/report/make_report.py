"""Makes report.html, one page that shows and explains what a run did, and the loss curves as pictures beside it.

The page holds the score tables with their intervals, the loss curves, how faithful the graft is, a gallery of test
pictures with every model's answer, and where everything came from. It needs nothing from outside itself.
The same files, with the same times of change, give the same bytes; the date on the page is that of the newest file.

By hand: .venv/bin/python scripts report.make_report --config config/demo.yaml
"""

import argparse
from pathlib import Path

from scripts.common import units
from scripts.common.errors import UserError, run_program
from scripts.common.files import write_text_atomically
from scripts.common.logger import log
from scripts.common.ownership import owned
from scripts.common.reading import seal_of
from scripts.report.commit import Commit, current_commit
from scripts.report.inputs import input_paths, read_inputs
from scripts.report.page import render, render_curve
from scripts.report.provenance import read_config
from scripts.workflow.layout import Layout

# A page that is passed around by mail or kept by the hundred should stay below this.
MAX_PAGE_BYTES = 3_000_000


def make(config_path: Path, page_path: Path, curves_dir: Path, commit: Commit) -> None:
    """Writes the page and the curves. Raises UserError, and leaves older ones, where a file is missing or contradicts."""
    inputs = read_inputs(config_path, commit)
    page = render(inputs)
    num_bytes = len(page.encode())
    if num_bytes > MAX_PAGE_BYTES:
        raise UserError(
            f"{page_path}: the page would have {num_bytes:,} bytes; expected at most {MAX_PAGE_BYTES:,}; "
            "lower report.num_gallery_pictures"
        )
    curve_paths = {metrics.stage: curves_dir / f"{metrics.stage}.svg" for metrics in inputs.stages}
    for path in (page_path, *curve_paths.values()):
        if path.is_dir():
            raise UserError(
                f"{path}: is a directory; expected nothing or an earlier file of a report; see what is there"
            )
    for metrics in inputs.stages:
        write_text_atomically(curve_paths[metrics.stage], render_curve(metrics))
    write_text_atomically(page_path, page)
    log(f"{page_path}: {units.size(num_bytes)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--effective-config", required=True, type=Path, help="config.json of the run, in its directory")
    parser.add_argument(
        "--config-sha256", help="seal of the configuration that the run was given, which config.json must have"
    )
    parser.add_argument("--curves-dir", required=True, type=Path, help="gets STAGE.svg")
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args()
    config = read_config(arguments.effective_config)
    if arguments.config_sha256 is not None and seal_of(config) != arguments.config_sha256:
        raise UserError(
            f"{arguments.effective_config}: not the configuration of this run: edited by hand, or of other settings; "
            "bring the file back as it was written, or remove it and run the rule effective_config"
        )
    inputs = [arguments.effective_config, *map(Path, input_paths(Layout(config)))]
    with owned(arguments.output, arguments.curves_dir, inputs=inputs):
        make(arguments.effective_config, arguments.output, arguments.curves_dir, current_commit())


if __name__ == "__main__":
    run_program(main)
