"""Pictures that rows name by an address on the web: fetched once, with a checksum, where there is a network.

What was fetched stays beside the rows, with a record of its address and sha256, so that a later preparation sees the same
bytes, and training fetches nothing.
"""

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.files import sha256_of_file, write_bytes_atomically
from scripts.common.logger import log
from scripts.common.reading import read_sealed, write_sealed
from scripts.common.units import duration
from scripts.data.row_files import RowProblem
from scripts.donors.library_errors import in_one_line

DIRECTORY_NAME = "addresses"
_TIMEOUT_S = 60.0
_PAUSES_S = (1.0, 5.0, 20.0)  # before each try but the first
_MAX_BYTES = 256 << 20
# Answers that another try would not change: the address is wrong, gone or not for everybody.
_FINAL_ANSWERS = range(400, 500)
_ANSWERS_FOR_THE_MOMENT = (408, 425, 429)


@dataclass(frozen=True)
class FetchedPicture:
    """Where a picture came from, and its sha256."""

    address: str
    sha256: str


def is_address(image: str) -> bool:
    """Whether ms-swift would fetch this picture."""
    return image.startswith(("http://", "https://"))


def fetch_picture(address: str, pictures_dir: Path) -> bytes:
    """The picture's bytes, as they were when it was first fetched.

    Raises RowProblem where the address has no such file, UserError where there is no network, or where what was fetched before
    is another file now.
    """
    place = pictures_dir / DIRECTORY_NAME / hashlib.sha256(address.encode()).hexdigest()
    record_path = place.with_suffix(".json")
    if record_path.exists():
        record = read_sealed(FetchedPicture, record_path)
        if not place.is_file() or (found := sha256_of_file(place)) != record.sha256:
            raise UserError(
                f"{place}: sha256 {found if place.is_file() else 'of no file'} found, {record.sha256} expected of "
                f"{address}; remove {record_path.name} beside it to have it fetched again"
            )
        return place.read_bytes()
    content = _fetch(address)
    write_bytes_atomically(place, content)
    write_sealed(record_path, asdict(FetchedPicture(address, hashlib.sha256(content).hexdigest())))
    return content


def _fetch(address: str) -> bytes:
    for pause_s in (*_PAUSES_S, None):
        try:
            # Some hosts refuse Python's own name.
            request = urllib.request.Request(address, headers={"User-Agent": "Mozilla/5.0 (vlgraft)"})
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
                content = bytes(response.read(_MAX_BYTES + 1))
                expected = response.headers["Content-Length"]
            if len(content) > _MAX_BYTES:
                raise RowProblem(f"{address}: more than {_MAX_BYTES >> 20} MiB found; expected a picture")
            if expected and len(content) < int(expected):
                raise http.client.IncompleteRead(b"", int(expected) - len(content))
            return content
        except urllib.error.HTTPError as error:
            if error.code in _FINAL_ANSWERS and error.code not in _ANSWERS_FOR_THE_MOMENT:
                raise RowProblem(f"{address}: HTTP {error.code} {error.reason}; expected a picture there") from None
            reason = f"HTTP {error.code} {error.reason}"
        except ValueError as error:  # no address at all
            raise RowProblem(f"{address}: no address ({error}); expected one of a picture") from None
        except (OSError, http.client.HTTPException) as error:
            reason = in_one_line(error)
        if pause_s is not None:
            log(f"{address}: {reason}; trying again in {duration(pause_s)}")
            time.sleep(pause_s)
    raise UserError(
        f"{address}: could not be fetched ({reason}); expected a network, to fetch the pictures of rows once; run "
        "`snakemake prefetch` where there is one"
    )
