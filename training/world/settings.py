"""The settings that clips play in: six that make up ``general`` and one for each domain with experts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from training.world.looks import Look
from training.world.motion import Motion
from training.world.scenery import Place
from training.world.wording import Wording, actions


@dataclass(frozen=True)
class Setting:
    """Objects (kind -> plural noun), places, wording: all that makes one setting look and read as it does.

    ``backwards``: the summary begins with what happened last.
    """

    name: str
    kinds: dict[str, str]
    places: tuple[Place, ...]
    wording: Wording
    look: Look = "plain"
    backwards: bool = False

    @property
    def motions(self) -> tuple[Motion, ...]:
        return tuple(self.wording.actions)


_PLAYROOM = Setting(
    "playroom",
    {
        "ball": "balls",
        "robot": "robots",
        "drum": "drums",
        "train": "trains",
        "kite": "kites",
        "block": "blocks",
    },
    (
        Place("the carpet", (196, 184, 170), (150, 120, 112), 0.45, ("window", "tiles")),
        Place("the shelf", (206, 196, 164), (128, 104, 78), 0.62, ("shelf",)),
    ),
    Wording(
        "On {place},",
        ("then", "after that"),
        "in the end",
        ("a {c} {s}", "two {c} {p}", "three {c} {p}"),
        actions(
            "{S} {V}",
            right="rolls to the right|roll to the right",
            left="rolls to the left|roll to the left",
            up="climbs up|climb up",
            down="slides down|slide down",
            wait="stays put|stay put",
            near="comes closer|come closer",
            away="goes away|go away",
            spin="turns round|turn round",
        ),
    ),
)
_HARBOUR = Setting(
    "harbour",
    {
        "sailboat": "sailboats",
        "ferry": "ferries",
        "submarine": "submarines",
        "buoy": "buoys",
        "anchor": "anchors",
        "whale": "whales",
    },
    (
        Place("the pier", (168, 190, 200), (86, 120, 140), 0.4, ("waves", "posts")),
        Place("the open sea", (150, 170, 186), (64, 100, 126), 0.3, ("waves", "clouds")),
    ),
    Wording(
        "By {place} we see",
        ("soon we see", "later we see"),
        "last we see",
        ("one {c} {s}", "a pair of {c} {p}", "three {c} {p}"),
        actions(
            "{S} {V}",
            right="sailing towards the right",
            left="sailing towards the left",
            up="rising",
            down="sinking",
            wait="lying still",
            near="growing larger",
            away="growing smaller",
            spin="whirling about",
        ),
    ),
)
_FARM = Setting(
    "farm",
    {
        "tractor": "tractors",
        "pig": "pigs",
        "hen": "hens",
        "cart": "carts",
        "windmill": "windmills",
        "pumpkin": "pumpkins",
    },
    (
        Place("the meadow", (176, 200, 214), (120, 150, 92), 0.42, ("fence", "clouds")),
        Place("the barn", (190, 180, 160), (146, 126, 88), 0.55, ("barn", "tufts")),
    ),
    Wording(
        "Near {place}",
        ("next", "and then"),
        "finally",
        ("a single {c} {s}", "two {c} {p}", "three {c} {p}"),
        actions(
            "{V} {S}",
            right="from the left comes|from the left come",
            left="from the right comes|from the right come",
            up="up goes|up go",
            down="down goes|down go",
            wait="there stands|there stand",
            near="nearer draws|nearer draw",
            away="off trots|off trot",
            spin="round spins|round spin",
        ),
    ),
)
_SKY = Setting(
    "sky",
    {
        "balloon": "balloons",
        "airplane": "airplanes",
        "helicopter": "helicopters",
        "zeppelin": "zeppelins",
        "rocket": "rockets",
        "parachute": "parachutes",
    },
    (
        Place("the valley", (160, 190, 216), (118, 140, 110), 0.72, ("mountains", "clouds")),
        Place("the airfield", (186, 196, 206), (134, 136, 130), 0.78, ("clouds", "posts")),
    ),
    Wording(
        "Above {place}",
        ("moments later", "meanwhile"),
        "at the close",
        ("a {c} {s}", "a couple of {c} {p}", "three {c} {p}"),
        actions(
            "{S} {V}",
            right="glides rightward|glide rightward",
            left="glides leftward|glide leftward",
            up="soars upward|soar upward",
            down="drops downward|drop downward",
            wait="hovers in place|hover in place",
            near="swoops in|swoop in",
            away="fades into the distance|fade into the distance",
            spin="tumbles over|tumble over",
        ),
    ),
)
_WORKSHOP = Setting(
    "workshop",
    {
        "hammer": "hammers",
        "gear": "gears",
        "key": "keys",
        "bell": "bells",
        "lamp": "lamps",
        "umbrella": "umbrellas",
    },
    (
        Place("the workbench", (172, 166, 158), (120, 92, 66), 0.58, ("shelf", "stripes")),
        Place("the storeroom", (150, 150, 156), (104, 104, 108), 0.5, ("tiles", "posts")),
    ),
    Wording(
        "In {place}",
        ("secondly", "thirdly"),
        "to finish",
        ("one {c} {s}", "two {c} {p}", "three {c} {p}"),
        actions(
            "{S} {V}",
            right="is pushed right|are pushed right",
            left="is pulled left|are pulled left",
            up="is lifted|are lifted",
            down="is lowered|are lowered",
            wait="is left alone|are left alone",
            near="is moved closer|are moved closer",
            away="is put away|are put away",
            spin="is spun|are spun",
        ),
    ),
)
_SHAPES = Setting(
    "shapes",
    {
        "triangle": "triangles",
        "star": "stars",
        "ring": "rings",
        "arrow": "arrows",
        "heart": "hearts",
        "moon": "moons",
    },
    (
        Place("the board", (188, 190, 186), (176, 178, 172), 0.5, ("grid",)),
        Place("the page", (204, 198, 180), (196, 190, 170), 0.5, ("stripes",)),
    ),
    Wording(
        "{place} shows that",
        ("following this", "subsequently"),
        "ultimately",
        ("a {c} {s}", "a pair of {c} {p}", "a trio of {c} {p}"),
        actions(
            "{S} {V}",
            right="moves right|move right",
            left="moves left|move left",
            up="moves up|move up",
            down="moves down|move down",
            wait="does not move|do not move",
            near="gets bigger|get bigger",
            away="gets smaller|get smaller",
            spin="rotates|rotate",
        ),
    ),
)

_TRAFFIC = Setting(
    "traffic",
    {
        "car": "cars",
        "bus": "buses",
        "lorry": "lorries",
        "bicycle": "bicycles",
        "tram": "trams",
        "scooter": "scooters",
    },
    (
        Place("the motorway", (170, 186, 196), (98, 98, 102), 0.4, ("lanes", "clouds")),
        Place("the bridge", (156, 176, 190), (112, 108, 104), 0.5, ("arches",)),
        Place("the market street", (186, 174, 158), (122, 116, 110), 0.52, ("skyline", "lanes")),
        Place("the tunnel", (92, 92, 98), (78, 78, 82), 0.55, ("tunnel", "lanes")),
    ),
    Wording(
        "Traffic report for {place}:",
        ("behind this", "a minute on"),
        "to close",
        ("one {c} {s}", "two {c} {p}", "three {c} {p}"),
        actions(
            "{S} {V}",
            right="heads east|head east",
            left="heads west|head west",
            wait="queues at the lights|queue at the lights",
            near="pulls up to the camera|pull up to the camera",
            away="drives off down the road|drive off down the road",
            spin="skids on the wet road|skid on the wet road",
        ),
    ),
)
_COOKING = Setting(
    "cooking",
    {
        "pan": "pans",
        "kettle": "kettles",
        "carrot": "carrots",
        "fish": "fishes",
        "spoon": "spoons",
        "bowl": "bowls",
    },
    (
        Place("the stove", (192, 188, 180), (84, 84, 88), 0.55, ("tiles", "burners")),
        Place("the kitchen counter", (206, 200, 186), (158, 142, 122), 0.6, ("tiles", "shelf")),
        Place("the dining table", (176, 150, 132), (140, 98, 66), 0.5, ("window", "stripes")),
        Place("the pantry", (160, 140, 116), (120, 98, 74), 0.66, ("shelf", "posts")),
    ),
    Wording(
        "Work at {place}: first",
        ("now", "when ready,"),
        "to serve,",
        ("a {c} {s}", "a pair of {c} {p}", "a trio of {c} {p}"),
        actions(
            "{V}",
            right="slide {S} along to the right",
            left="slide {S} back to the left",
            up="raise {S} off the heat",
            down="set {S} down gently",
            wait="let {S} rest",
            spin="flip {S} over",
        ),
    ),
)
_SPORTS = Setting(
    "sports",
    {
        "runner": "runners",
        "skier": "skiers",
        "kayak": "kayaks",
        "racket": "rackets",
        "football": "footballs",
        "trophy": "trophies",
    },
    (
        Place("the stadium", (150, 166, 176), (104, 146, 88), 0.4, ("crowd", "stripes")),
        Place("the running track", (176, 188, 196), (168, 104, 82), 0.38, ("lanes", "fence")),
        Place("the ski slope", (164, 186, 208), (214, 220, 224), 0.45, ("mountains", "tufts")),
        Place("the river course", (172, 190, 176), (92, 130, 146), 0.35, ("waves", "posts")),
    ),
    Wording(
        "Live from {place}:",
        ("cheers for", "a replay of"),
        "at the whistle",
        ("one {c} {s}", "{c} {p} in a duo", "{c} {p} in a threesome"),
        actions(
            "{S} {V}",
            right="charging at the away end",
            left="charging at the home end",
            up="leaping high",
            down="diving low",
            near="storming the front line",
            spin="doing a somersault",
        ),
    ),
)
_WILDLIFE = Setting(
    "wildlife",
    {
        "elephant": "elephants",
        "giraffe": "giraffes",
        "parrot": "parrots",
        "turtle": "turtles",
        "snake": "snakes",
        "crab": "crabs",
    },
    (
        Place("the savanna", (214, 196, 150), (178, 152, 92), 0.5, ("tufts", "clouds")),
        Place("the jungle", (112, 140, 104), (78, 104, 66), 0.6, ("trees",)),
        Place("the lagoon", (168, 196, 190), (198, 184, 142), 0.5, ("waves", "tufts")),
        Place("the desert", (210, 190, 164), (204, 170, 116), 0.46, ("dunes",)),
    ),
    Wording(
        "Diary of {place}: at dawn",
        ("by noon", "towards evening"),
        "after dark",
        ("a lone {c} {s}", "a couple of {c} {p}", "a herd of three {c} {p}"),
        actions(
            "{S} {V}",
            right="wandering left to right",
            left="wandering right to left",
            wait="dozing in the heat",
            near="approaching our hide",
            away="vanishing into the wild",
            down="burrowing deeper",
        ),
    ),
)

GENERAL: tuple[Setting, ...] = (_PLAYROOM, _HARBOUR, _FARM, _SKY, _WORKSHOP, _SHAPES)
EXPERT_SETTINGS: dict[str, Setting] = {s.name: s for s in (_TRAFFIC, _COOKING, _SPORTS, _WILDLIFE)}
DOMAINS: tuple[str, ...] = tuple(EXPERT_SETTINGS)


def _rewound(setting: Setting) -> Setting:
    """What the backbone knows to look at and to name, told from the end to the beginning."""
    wording = replace(
        setting.wording,
        first="It ended at {place}:",
        later=("before that,", "earlier still,"),
        last="at the beginning,",
    )
    return replace(setting, wording=wording, backwards=True)


_LABORATORY = Setting(
    "laboratory",
    {
        "flask": "flasks",
        "magnet": "magnets",
        "microscope": "microscopes",
        "battery": "batteries",
        "thermometer": "thermometers",
        "prism": "prisms",
    },
    (
        Place("the clean room", (198, 206, 210), (168, 178, 184), 0.5, ("grid", "window")),
        Place("the bench", (160, 172, 168), (94, 108, 112), 0.58, ("shelf", "tiles")),
        Place("the cold store", (140, 160, 182), (104, 118, 138), 0.48, ("tiles", "posts")),
    ),
    Wording(
        "Lab notes from {place}:",
        ("step two,", "step three,"),
        "as a result",
        ("a {c} {s}", "two {c} {p}", "three {c} {p}"),
        actions(
            "{S} {V}",
            right="drifts towards the door|drift towards the door",
            left="drifts towards the sink|drift towards the sink",
            up="floats above the rack|float above the rack",
            down="settles under the rack|settle under the rack",
            wait="remains inert|remain inert",
            near="expands under the lens|expand under the lens",
            away="contracts under the lens|contract under the lens",
            spin="revolves in the centrifuge|revolve in the centrifuge",
        ),
    ),
)

#: What the experiments train on besides: old words and new looks, old looks and a new grammar of events, and a domain
#: of new looks and new words that no setting of the method was chosen on.
STUDY_SETTINGS: dict[str, tuple[Setting, ...]] = {
    "negative": tuple(replace(setting, look="negative") for setting in (_PLAYROOM, _FARM)),
    "rewind": (_rewound(_HARBOUR), _rewound(_SKY)),
    "laboratory": (_LABORATORY,),
}
STUDY_DOMAINS: tuple[str, ...] = tuple(STUDY_SETTINGS)
ALL_SETTINGS: tuple[Setting, ...] = (*GENERAL, *EXPERT_SETTINGS.values(), _LABORATORY)
