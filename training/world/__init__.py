"""The procedural demo world: short clips of pictograms with a reference summary and the facts behind it."""

from training.world.clip import Box, Clip, Event, Fact
from training.world.motion import MOTIONS, Motion
from training.world.palette import COLOURS
from training.world.pictograms import KINDS
from training.world.settings import DOMAINS, STUDY_DOMAINS
from training.world.splits import Split, clip_from_seed, make_clip

__all__ = ["COLOURS", "DOMAINS", "KINDS", "MOTIONS", "STUDY_DOMAINS", "Box", "Clip", "Event", "Fact", "Motion", "Split",
           "clip_from_seed", "make_clip"]  # fmt: skip
