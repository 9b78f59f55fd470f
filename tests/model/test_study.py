"""The study's language donor is trained on what is asked later, and its scores are what greedy decoding would say."""

import itertools
import random
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Qwen3ForCausalLM

from helpers.graft_run import graft_donors
from helpers.make_tiny_donors import LLM_LANGUAGE, NUM_BASE_TOKENS
from scripts.common.errors import UserError
from scripts.demo.donor_files import save_weights, start_llm_donor
from scripts.demo.prompt_texts import PICTURE_TOKEN
from scripts.demo.qwen_tokenizer import build_tokenizer
from scripts.graft.texts import load_tokenizer
from study.make_language_donor import NO_LOSS, Conversations, StudyDonorSettings, accuracy, padded, shown_badly, train
from study.score import ANSWER_END, Question, are_right, by_group, encode, load, perplexity, questions_about_pictures
from study.sums import ALL_CALCULATIONS, Calculation

TRAINING = StudyDonorSettings(
    num_base_tokens=NUM_BASE_TOKENS, language=LLM_LANGUAGE, num_steps=120, batch_size=32, num_windows=2, window_tokens=32,
    learning_rate=0.003, gain_learning_rate_factor=10, weight_decay=0.01, adam_beta2=0.98, noise=0.0, dropout=0.0,
    nums_picture_tokens=[4], num_gate_picture_tokens=4, min_text_accuracy=0.0,
)  # fmt: skip
CALCULATION = Calculation("product", 3, 7)


@pytest.fixture(scope="module")
def conversations() -> Conversations:
    return Conversations(build_tokenizer(NUM_BASE_TOKENS, qwen3=True))


@pytest.fixture(scope="module")
def half_trained(
    conversations: Conversations, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Qwen3ForCausalLM, Path]:
    """A donor that answers some calculations in words and not others, and where it was saved."""
    directory = tmp_path_factory.mktemp("llm")
    model = start_llm_donor(directory, NUM_BASE_TOKENS, LLM_LANGUAGE, seed=0)
    english = torch.tensor(conversations.tokenizer.encode("The quick brown fox jumps over the lazy dog. " * 40).ids)
    train(model, conversations, english, TRAINING, seed=0)
    save_weights(model, directory)
    return model.eval(), directory


@pytest.fixture(scope="module")
def graft_dir(root: Path, tiny_vl_dir: Path, tiny_llm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graft_donors(root, tiny_vl_dir, tiny_llm_dir, tmp_path_factory.mktemp("study") / "graft", "qwen3", "fresh")


@pytest.fixture
def picture_paths(tmp_path: Path) -> tuple[str, str]:
    """Two pictures of 2 x 2 merged tokens."""
    paths = []
    for number in range(2):
        pixels = random.Random(number).randbytes(56 * 56)
        path = tmp_path / f"{number}.png"
        Image.frombytes("L", (56, 56), pixels).convert("RGB").save(path)
        paths.append(str(path))
    return paths[0], paths[1]


def question_of(calculation: Calculation, picture_paths: tuple[str, str]) -> Question:
    row = {
        "messages": [{"role": "user", "content": "<image><image>" + calculation.question_about_pictures}],
        "images": picture_paths,
        "answer": calculation.answer,
    }
    (question,) = questions_about_pictures([row], shift=0)
    return question


def test_the_donor_learns_the_later_question_token_for_token(
    conversations: Conversations, picture_paths: tuple[str, str], graft_dir: Path
) -> None:
    learned = conversations.calculation_shown(CALCULATION, num_tokens=4)
    picture_id = conversations.tokenizer.token_to_id(PICTURE_TOKEN)
    ids = list(learned.ids)
    assert [[ids[place] for place in picture] for picture in learned.picture_places] == [
        [conversations.digit_ids[digit]] * 4 for digit in (CALCULATION.first, CALCULATION.second)
    ]
    for place in itertools.chain(*learned.picture_places):
        ids[place] = picture_id
    _, processor = load(graft_dir)
    inputs, is_answer = encode([question_of(CALCULATION, picture_paths)], load_tokenizer(graft_dir), processor)
    asked = inputs["input_ids"][0].tolist()
    newline = conversations.tokenizer.encode("\n").ids  # decoding stops before it, training goes on to it
    assert ids == asked + newline
    assert conversations.tokenizer.decode(inputs["input_ids"][0][is_answer[0]].tolist(), skip_special_tokens=False) == (
        CALCULATION.answer + ANSWER_END
    )
    assert learned.num_before == is_answer[0].nonzero()[0]


def test_the_loss_is_on_the_answer_and_its_ending_alone(conversations: Conversations) -> None:
    batch = [conversations.in_words(CALCULATION), conversations.in_words(Calculation("sum", 0, 0))]
    ids, targets = padded(batch)
    said = []
    for row, conversation in enumerate(batch):
        with_loss = ids[row][targets[row] != NO_LOSS].tolist()
        assert with_loss == conversation.ids[conversation.num_before :]
        said.append(conversations.tokenizer.decode(with_loss, skip_special_tokens=False))
    assert said == ["21<|im_end|>\n", "0<|im_end|>\n"]


def test_only_what_stands_for_pictures_is_disturbed(conversations: Conversations) -> None:
    batch = conversations.draw(random.Random(0), 16, num_tokens=3)
    ids, _ = padded(batch)
    embedding = torch.nn.Embedding(2000, 8)
    shown = shown_badly(embedding, ids, batch, conversations.digit_ids, noise=1.0, dropout=0.5)
    has_changed = (shown != embedding(ids)).any(-1)
    expected = torch.zeros_like(has_changed)
    for row, conversation in enumerate(batch):
        expected[row, list(itertools.chain(*conversation.picture_places))] = True
    assert torch.equal(has_changed, expected)
    assert [len(conversation.picture_places) for conversation in batch] == [1] * 2 + [0] * 4 + [2] * 10


def test_what_counts_as_right_is_what_greedy_decoding_says(half_trained: tuple[Qwen3ForCausalLM, Path]) -> None:
    model, directory = half_trained
    tokenizer = load_tokenizer(directory)
    questions = [Question(c.text_before_answer, c.answer) for c in ALL_CALCULATIONS[::5]]
    said = []
    for question in questions:
        inputs = tokenizer(question.before, add_special_tokens=False, return_tensors="pt")
        output = model.generate(**inputs, do_sample=False, max_new_tokens=6, temperature=None, top_p=None, top_k=None)
        answer: str = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])
        said.append(answer.startswith(question.answer + ANSWER_END))
    assert any(said) and not all(said)
    assert are_right(model, questions, tokenizer, processor=None) == said


def test_the_donors_own_gate_agrees_with_the_score(
    conversations: Conversations, half_trained: tuple[Qwen3ForCausalLM, Path]
) -> None:
    model, directory = half_trained
    in_words = [conversations.in_words(calculation) for calculation in ALL_CALCULATIONS]
    questions = [Question(c.text_before_answer, c.answer) for c in ALL_CALCULATIONS]
    right = are_right(model, questions, load_tokenizer(directory), processor=None)
    # The gate asks for the line break behind the ending, too, which is learned at once.
    assert accuracy(model, in_words) == pytest.approx(sum(right) / len(right), abs=0.01)


def test_a_picture_answer_is_read_where_it_stands_in_a_padded_batch(
    graft_dir: Path, picture_paths: tuple[str, str]
) -> None:
    model, processor = load(graft_dir)
    tokenizer = load_tokenizer(graft_dir)
    questions = [question_of(c, picture_paths) for c in (CALCULATION, Calculation("sum", 1, 1))]
    together, is_answer = encode(questions, tokenizer, processor)
    with torch.inference_mode():
        logits = model(**together).logits
        for row, question in enumerate(questions):
            alone, is_answer_alone = encode([question], tokenizer, processor)
            expected = model(**alone).logits[0][is_answer_alone[0]]
            torch.testing.assert_close(logits[row][is_answer[row]], expected, rtol=1e-4, atol=1e-5)


def test_shuffled_questions_are_about_the_pictures_of_other_rows() -> None:
    rows = [
        {
            "messages": [{"content": "<image><image>What?"}],
            "answer": str(number),
            "images": [f"{number}a", f"{number}b"],
        }
        for number in range(4)
    ]
    questions = questions_about_pictures(rows, shift=2)
    assert [(question.answer, question.picture_paths[0]) for question in questions] == [
        ("0", "2a"), ("1", "3a"), ("2", "0a"), ("3", "1a"),
    ]  # fmt: skip


def test_shares_are_given_by_kind_of_calculation() -> None:
    rows = [{"is_trained": n % 2 == 0, "operation": "sum" if n < 2 else "product"} for n in range(4)]
    assert by_group(rows, [True, False, True, True]) == {
        "overall": 0.75, "trained": 1.0, "untrained": 0.5, "sum": 0.5, "product": 1.0,
    }  # fmt: skip


def test_perplexity_is_that_of_the_model_on_whole_windows(half_trained: tuple[Qwen3ForCausalLM, Path]) -> None:
    model, directory = half_trained
    tokenizer = load_tokenizer(directory)
    text = "The quick brown fox jumps over the lazy dog. " * 40
    assert 1 < perplexity(model, text, tokenizer) < perplexity(model, text[::-1], tokenizer)


def test_a_directory_that_lost_a_tensor_is_not_scored(graft_dir: Path, tmp_path: Path) -> None:
    for path in graft_dir.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    shard = next(path for path in sorted(tmp_path.glob("*.safetensors")) if "model.norm.weight" in load_file(path))
    save_file({n: t for n, t in load_file(shard).items() if n != "model.norm.weight"}, shard, {"format": "pt"})
    with pytest.raises(UserError, match="missing_keys"):
        load(tmp_path)
