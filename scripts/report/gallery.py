"""The questions that the page shows, chosen by rule, and their pictures as data URLs."""

import base64
import hashlib
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from scripts.common.errors import UserError
from scripts.evaluate.model_names import is_control, pipeline_order
from scripts.evaluate.records import Record, of_first_seed
from scripts.evaluate.scores import Benchmark
from scripts.report.findings import NOT_MADE_HERE

# Longest sides to try, in pixels, until the pictures of a page fit into its budget.
SIDES_PX = (480, 360, 240, 160, 96)

# A picture up to this size is kept as it is, lossless and with hard edges; a larger one becomes a JPEG.
SMALL_PX = 160
JPEG_QUALITY = 82

# Leaves room for the rest of a page of at most 3 MB; base64 makes 4 bytes of 3.
PICTURE_BUDGET_BYTES = 1_800_000

# More pixels than any benchmark's picture; beyond, a small file may unpack to gigabytes.
MAX_PICTURE_PIXELS = 100_000_000

GROUPS = (
    ("learned", "Learned on the way", "right at the last stage, wrong at an earlier one"),
    ("wrong", "Wrong in the end", "wrong at the last stage"),
    ("right", "Right throughout", "right at every stage"),
)


@dataclass(frozen=True)
class Question:
    """One question with what each model answered, in pipeline order."""

    index: str
    group: str
    subject: str | None
    question: str
    options: dict[str, str]
    answer: str
    answers: list[tuple[str, Record]]

    @property
    def right_models(self) -> list[str]:
        """The models that answered right, in pipeline order."""
        return [model for model, record in self.answers if record.correct]

    @property
    def has_picture(self) -> bool:
        """Some benchmarks ask a few questions without one."""
        return self.answers[0][1].image_sha256 is not None


@dataclass(frozen=True)
class Picture:
    """A picture that the page can hold."""

    data_url: str
    width: int
    height: int
    is_small: bool


@dataclass(frozen=True)
class GalleryGroup:
    """The chosen questions of one group, and how many there were to choose from."""

    title: str
    meaning: str
    num_questions: int
    questions: list[Question]


def questions_of(benchmark: Benchmark) -> list[Question]:
    """Every question of the benchmark with its group; controls are left out, they were shown other pictures."""
    models = sorted((model for model in benchmark.records if not is_control(model)), key=pipeline_order)
    stages = [model for model in models if model not in NOT_MADE_HERE] or models
    if not models:
        return []
    by_model = {model: of_first_seed(benchmark.records[model]) for model in models}
    questions = []
    for index, record in by_model[models[0]].items():
        was_right = [by_model[model][index].correct for model in stages]
        group = "wrong" if not was_right[-1] else "right" if all(was_right) else "learned"
        answers = [(model, by_model[model][index]) for model in models]
        questions.append(
            Question(index, group, record.subject, record.question, record.options, record.answer, answers)
        )
    return questions


def choose(questions: Sequence[Question], num_pictures: int, benchmark_name: str) -> list[GalleryGroup]:
    """Takes from the groups in turn; within a group from the subjects in turn, in the order of a hash of the index.

    The hash knows nothing of pictures or answers, so that the choice is neither the first rows nor anybody's taste, and
    the same records give the same gallery.
    """
    waiting = {
        group: _mixed_subjects([question for question in questions if question.group == group], benchmark_name)
        for group, _, _ in GROUPS
    }
    taken: dict[str, list[Question]] = defaultdict(list)
    num_left = num_pictures
    while num_left and any(waiting.values()):
        for group, _, _ in GROUPS:
            if num_left and waiting[group]:
                taken[group].append(waiting[group].pop(0))
                num_left -= 1
    return [
        GalleryGroup(title, meaning, sum(question.group == group for question in questions), taken[group])
        for group, title, meaning in GROUPS
        if taken[group]
    ]


def _mixed_subjects(questions: Sequence[Question], benchmark_name: str) -> list[Question]:
    """By hash, but the second question of a subject only after the first of every other."""

    def key(question: Question) -> str:
        return hashlib.sha256(f"{benchmark_name}:{question.index}".encode()).hexdigest()

    num_of_subject: dict[str | None, int] = defaultdict(int)
    placed = []
    for question in sorted(questions, key=key):
        placed.append((num_of_subject[question.subject], key(question), question))
        num_of_subject[question.subject] += 1
    return [question for _, _, question in sorted(placed, key=lambda place: place[:2])]


def check_pictures(questions: Sequence[Question], encoded: dict[str, list[bytes]], tsv_path: Path) -> None:
    """Refuses a picture that is not the one that the models were shown."""
    for question in questions:
        # One sha256 over the bytes of all pictures of a question, as questions/pictures.py makes it.
        shown = encoded.get(question.index)
        found = hashlib.sha256(b"".join(shown)).hexdigest() if shown else None
        for model, record in question.answers:
            if record.image_sha256 != found:
                raise UserError(
                    f"{tsv_path}: the picture of question {question.index} is not the one that {model} was shown "
                    f"(sha256 {found}, in its record {record.image_sha256}); evaluate {model} again"
                )


def _opened(encoded: bytes, where: str) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(encoded))
        if picture.width * picture.height > MAX_PICTURE_PIXELS:
            raise UserError(
                f"{where}: its picture has {picture.width} x {picture.height} pixels; expected at most "
                f"{MAX_PICTURE_PIXELS:,}; make it smaller in the benchmark's file"
            )
        picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{where}: its picture cannot be read ({error}); get or make this file again") from None
    return picture


def embed(encoded: bytes, where: str, side_px: int) -> Picture:
    """The picture encoded anew, at most `side_px` long, so that only its pixels get into the page."""
    original = _opened(encoded, where)
    has_alpha = original.mode in ("RGBA", "LA", "PA") or "transparency" in original.info
    picture: Image.Image
    if has_alpha:
        # On white, as a page would show it.
        picture = Image.new("RGB", original.size, "white")
        picture.paste(original, mask=original.convert("RGBA").getchannel("A"))
    else:
        picture = original.convert("L" if original.mode in ("1", "L") else "RGB")
    # Comments, colour profiles and the like, which Pillow would write again.
    picture.info.clear()
    is_small = max(picture.size) <= min(SMALL_PX, side_px)
    if max(picture.size) > side_px:
        picture.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if is_small:
        if picture.mode == "RGB" and _is_grey(picture):
            picture = picture.convert("L")
        picture.save(buffer, "PNG", optimize=True)
    else:
        picture.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    kind = "png" if is_small else "jpeg"
    data_url = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Picture(data_url, picture.width, picture.height, is_small)


def _is_grey(picture: Image.Image) -> bool:
    red, green, blue = (channel.tobytes() for channel in picture.split())
    return red == green == blue


def embed_all(encoded: dict[str, list[bytes]], tsv_path: Path, budget_bytes: int) -> dict[str, list[Picture]]:
    """All pictures at the largest size at which they fit into the budget; the smallest size when none does."""
    pictures: dict[str, list[Picture]] = {}
    for side_px in SIDES_PX:
        pictures = {
            index: [embed(part, f"{tsv_path}: row {index}", side_px) for part in parts]
            for index, parts in sorted(encoded.items())
        }
        if sum(len(picture.data_url) for parts in pictures.values() for picture in parts) <= budget_bytes:
            break
    return pictures
