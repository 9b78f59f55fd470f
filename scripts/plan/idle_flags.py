"""Flags of a stage that change nothing where they stand: each with why, so that nobody counts on it."""

from collections.abc import Iterator

from scripts.train.settings import StageSettings


def idle_flags(stage: str, settings: StageSettings) -> Iterator[str]:
    """One line each, beginning with the key."""
    flags, where = settings.flags, f"{stage}.flags"
    if settings.freezes("freeze_vit") and flags.get("vit_lr") is not None:
        yield f"{where}.vit_lr: the tower does not train"
    if settings.freezes("freeze_aligner") and flags.get("aligner_lr") is not None:
        yield f"{where}.aligner_lr: the aligner does not train"
    for name in ("warmup_ratio", "warmup_steps"):
        if flags.get(name) and flags.get("lr_scheduler_type") == "constant":
            yield f"{where}.{name}: lr_scheduler_type constant has no warm-up"
    for name in ("FPS_MAX_FRAMES", "VIDEO_MAX_PIXELS"):
        if name in settings.environment:
            yield f"{stage}.environment.{name}: rows have no videos"
    if settings.num_nodes == 1 and "ddp_timeout" in flags and not settings.uses_torchrun:
        yield f"{where}.ddp_timeout: one process waits for nobody"
