"""Fetches a benchmark's TSV from where VLMEvalKit fetches it, goes on after an interruption, and checks its md5.

Address and md5 come from VLMEvalKit's own tables, so that the questions are those that it would have fetched itself. A file
that is in place already is never replaced: if its md5 is another one, both are named and nothing is done.

By hand: .venv/bin/python scripts questions.fetch_benchmark --config config.yaml --dataset MMMU_DEV_VAL
"""

import argparse
import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from scripts.common.errors import UserError, run_program
from scripts.common.files import md5_of_file, move_into_place, write_text_atomically
from scripts.common.logger import log
from scripts.common.ownership import owned
from scripts.common.units import size

_BLOCK_BYTES = 1 << 20
_PROGRESS_S = 10.0
_TIMEOUT_S = 60.0


def address_and_md5(benchmark: str) -> tuple[str, str]:
    """From VLMEvalKit's tables; raises UserError when it does not know the benchmark, or not its md5."""
    from vlmeval.dataset import DATASET_CLASSES  # takes 20 s

    for dataset in DATASET_CLASSES:
        if benchmark in dataset.supported_datasets():
            url = getattr(dataset, "DATASET_URL", {}).get(benchmark)
            md5 = getattr(dataset, "DATASET_MD5", {}).get(benchmark)
            if url and md5:
                return str(url), str(md5)
    raise UserError(
        f"evaluate.benchmarks: {benchmark} has no address and md5 in VLMEvalKit; expected a benchmark that it knows, "
        "such as MMMU_DEV_VAL; put the TSV in its place yourself"
    )


def download(url: str, part_path: Path) -> None:
    """Completes `part_path`, from where an earlier try broke off if the server can."""
    start = part_path.stat().st_size if part_path.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            goes_on = response.status == http.HTTPStatus.PARTIAL_CONTENT
            left = int(response.headers["Content-Length"]) if response.headers["Content-Length"] else None
            done = start if goes_on else 0
            total = None if left is None else done + left
            logged_s = 0.0
            with open(part_path, "ab" if goes_on else "wb") as part:
                while block := response.read(_BLOCK_BYTES):
                    done += part.write(block)
                    if time.monotonic() - logged_s > _PROGRESS_S:
                        logged_s = time.monotonic()
                        log(f"{part_path.name}: {size(done)}" + ("" if total is None else f" of {size(total)}"))
                os.fsync(part.fileno())
        if total is not None and done < total:
            raise http.client.IncompleteRead(b"", total - done)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # the file is complete; its md5 is checked next
        raise UserError(f"{url}: HTTP {error.code} {error.reason}; expected the benchmark; try again later") from None
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"{url}: the download broke off ({error}); run the same command again, it goes on from {part_path}"
        ) from None


def fetch(url: str, md5: str, path: Path) -> None:
    """Puts the whole file in place and checks it, or raises UserError; one that is in place is only checked."""
    if path.exists():
        if (found := md5_of_file(path)) != md5:
            raise UserError(
                f"{path}: md5 {found} found, {md5} expected; it was left as it is: move it away to have it fetched, or "
                "give your own TSV its own name"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part_path = path.with_name(f"{path.name}.part")
    download(url, part_path)
    if (found := md5_of_file(part_path)) != md5:
        part_path.unlink()
        raise UserError(f"{url}: md5 {found} found, {md5} expected; it was removed; run the same command again")
    move_into_place(part_path, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--benchmark", required=True, help="VLMEvalKit's name")
    parser.add_argument("--tsv", type=Path, required=True, help="where it lies, or is put")
    parser.add_argument("--checksum", type=Path, required=True, help="written last, once the TSV is whole and right")
    arguments = parser.parse_args()
    with owned(arguments.tsv, arguments.checksum):
        url, md5 = address_and_md5(arguments.benchmark)
        fetch(url, md5, arguments.tsv)
        write_text_atomically(arguments.checksum, f"{md5}  {arguments.tsv.name}\n")
        log(f"{arguments.tsv}: md5 {md5}")


if __name__ == "__main__":
    run_program(main)
