"""Renders a chat template with a sample conversation, within limits: a template is a program of the donor's, which may never end
or fill the memory. So it runs in a process of its own.
"""

import json
import resource
import subprocess
import sys

import jinja2
import jinja2.sandbox

from scripts.common.root import ROOT

MAX_CPU_S = 10
MAX_BYTES = 1 << 30

# A conversation that a usable template must show in full, and what it must show.
_SAMPLE_MESSAGES = [
    {"role": "user", "content": [{"type": "image"}, {"type": "video"}, {"type": "text", "text": "sample text"}]}
]

_SAMPLE_PIECES = (
    "<|vision_start|><|image_pad|><|vision_end|>",
    "<|vision_start|><|video_pad|><|vision_end|>",
    "sample text<|im_end|>",
    "<|im_start|>assistant\n",
)
_CALL = "from scripts.graft.sample_rendering import main; main()"


def _fault_here(template: str) -> str | None:
    """What is wrong with a template, or None. It is rendered as transformers renders it."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    try:
        text = environment.from_string(template).render(messages=_SAMPLE_MESSAGES, add_generation_prompt=True)
    except Exception as error:  # whatever a program may raise
        return f"does not render a message with a picture ({type(error).__name__}: {error})"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "renders half a character, which no tokenizer takes"
    for piece in _SAMPLE_PIECES:
        if piece not in text:
            return f"renders a message with a picture and a video without {piece!r}"
    return None


def main() -> None:
    """In the process of its own: a template on stdin, its fault as JSON on stdout."""
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    print(json.dumps(_fault_here(sys.stdin.buffer.read().decode())))


def template_fault(template: str) -> str | None:
    """What is wrong with a chat template for pictures, or None."""
    if found := next((letter for letter in ("\ufeff", "\0") if letter in template), None):
        return f"holds the character {found!a}, which would stand in every prompt"
    finished = subprocess.run([sys.executable, "-c", _CALL], cwd=ROOT, input=template.encode(), capture_output=True)
    if finished.returncode:
        return f"did not render a message within {MAX_CPU_S} s of processor time and {MAX_BYTES >> 30} GiB"
    fault: str | None = json.loads(finished.stdout)
    return fault
