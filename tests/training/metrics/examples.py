"""Summaries and references that the libraries and ours are compared on: several references, punctuation, repetition."""

from __future__ import annotations

SUMMARIES = [
    "A red car heads east, then two blue buses queue at the lights.",
    "The girl dances around the room.",
    "Two dogs (one of them black) run run run after a ball!",
    "Nothing happens.",
    "A man's kayak doesn't turn; he storms the front line in 3.5 minutes.",
    "Three elephants are wandering from left to right across the savanna.",
]
REFERENCES = [
    ["One red car heads east. Behind this two blue buses queue at the lights."],
    ["A young woman is dancing around in a room.", "The girl dances, and the camera captures her movements."],
    [
        "Two dogs run after a ball.",
        "A black dog and a brown dog are running.",
        "Dogs play with a ball on the grass.",
    ],
    ["A lone red crab is dozing in the heat.", "The crab waits."],
    ["A man's kayak storms the front line."],
    ["At dawn a herd of three grey elephants wandering left to right.", "Elephants walk over the savanna."],
]
