"""Everyday English words, so that the tokenizer spells few of them and the model has met them all.

Experts are trained later on wordings of their own through frozen embeddings; a word whose tokens never occurred in
the backbone's training could hardly be said. The list is of general use: most of it occurs nowhere in the demo world.
"""

import random

WORDS = tuple(
    """
    a about above across after again against ago ahead air all almost alone along already also although always among an
    and animal another answer any appear apple are area arm around arrive as ask at away baby back bad bag ball band
    bank bar base basket bath be beach bear beat beautiful because become bed bee before begin behind being bell below
    bench bend beside best better between beyond bicycle big bike bird bit bite black blow blue board boat body boil
    bone book boot born both bottle bottom bowl box boy branch bread break breakfast breath breeze brick bridge bright
    bring broad brother brown brush bucket build building burn burrow bus bush busy but butter button buy by cabin cage
    cake call calm came camel camera camp can candle cap car card care careful carry cart case castle cat catch cattle
    cave ceiling centre chain chair chance change charge chase cheese chicken child choose church circle city class
    clean clear cliff climb clock close cloth cloud club coach coast coat coffee cold collect come comes coming
    container cook cool copper corn corner cost cotton could count country couple course cover cow crab cream cross
    crowd cry cup curtain curve cut cycle dance dark dawn day dead deep deeper deer desert desk diary did dinner dip
    direction dirt dish dive dock doctor does dog done door doubt down downhill dozing dragon draw dream dress drink
    drive driver drop dry duck dusk dust duty each ear early earth east easy eat edge egg eight either elephant else
    empty end engine enjoy enough enter equal even evening event ever every example eye face fact fall family far farm
    fast fat father feather feed feel feet fell fence few field fight fill film final find fine finger finish fire
    first fish five fix flag flame flat flip float flock flood floor flour flow flower fly fog fold follow food fool
    foot football for force forest fork form forth found four fox free fresh friend frog from front fruit fry full fun
    further game garden gate gather gave gentle gently get giraffe girl give glass go goal goat goes going gold gone
    good goose got grain grand grape grass great green grey ground group grow guard guess guide guitar gun hair half
    hall hand hang happy hard has hat have he head heads hear heart heat heavy held help hen her herd here hide high
    hill him his hit hold hole home honey hook hope horn horse hot hotel hour house how huge hundred hungry hunt hurry
    ice idea if in inside into iron is island it its jacket jar job join juice jump jungle just kayak keep kettle key
    kick kind king kiss kitchen kite knee knife knock know ladder lady lagoon lake lamb lamp land lane language large
    last late later laugh lawn lay lead leaf lean leap learn least leave leaves left leg lemon less let letter level
    library lid lie life lift light lights like line lion lip list listen little live load local log lone long look
    lorry lose lost lot loud love low lower luck lunch machine made mail main make man many map march mark market mat
    match matter may me meal mean meat meet melon melt member men metal middle might mile milk mill mind mine minute
    mirror miss mix model modern moment money monkey month moon more morning most mother motor motorway mountain mouse
    mouth move much mud music must my nail name narrow near nearly neck need needle neighbour nest net never new news
    next nice night nine no nobody noise none noon nor north nose not note nothing now number nurse oak ocean of off
    offer office often oil old on once one onion only onto open or orange order other our out outside oven over own
    page paint pair palm pan pantry paper parent park parrot part party pass passes past path pause pay peace pen
    pencil people pepper perhaps person phone photo piano pick picture piece pig pile pilot pine pink pipe pitch place
    plain plan plane plant plate platform play player please plenty pocket point pole police pond pool poor port
    possible post pot potato pour power present press pretty price prize problem proud public pull pulls pump purple
    push put quarter queen question queue quick quiet quite rabbit race racket radio rain raise ranger reach read ready
    real rear red remain remember replay report rest return rice rich ride right ring ripe rise rises river road roar
    rock roll roof room root rope rose rough round row rub rule run runner running sad safe sail salad salt same sand
    sauce savanna save saw say says scene school scooter sea season seat second see seed seem seen sell send sense
    serve set seven several shade shadow shake shape share sharp she sheep sheet shelf shell shine ship shirt shoe
    shoot shop shore short should shoulder shout show shows shut side sight sign silent silver simple since sing single
    sister sit six size skate ski skid skier skin sky sleep slice slide slip slope slow small smell smile smoke smooth
    snake snow so soap soft soil soldier some somebody someone something somersault son song soon sort sound soup south
    space speak special speed spend spin spoon sport spot spread spring square squirrel stack stadium stage stair stand
    star start state station stay steal steam steel step stick still stir stone stood stop store storm story stove
    straight strange stream street strong such sudden sugar summer sun supper sure surface surprise sweep sweet swim
    swing table tail take talk tall tap taste taxi tea teach team tell ten tent than that the their them then there
    these they thick thin thing think third thirsty this those thousand three threesome through throw thunder ticket
    tide tie tiger tight till time tin tiny tip tired to toast today together tomato tomorrow tongue tonight too tool
    tooth top toss total touch toward towards tower town toy track trade traffic train tram trap travel tray tree trip
    trophy truck true trunk trust try tunnel turn turtle twelve twenty twice two type umbrella uncle under until up
    upon upper us use useful usual valley van vanish various vegetable very view village violin visit voice wade wait
    wake walk wall wander wandering want war warm was wash watch water wave way we weak wear weather wedding week
    weight well went were west wet whale what wheat wheel when where which while whisper whistle white who whole whose
    why wide wife wild will win wind window wine wing winter wire wise with without wolf woman wonder wood wool word
    work world would write wrong yard year yellow yes yesterday yet you young your zebra zoo
    """.split()  # noqa: SIM905 - as a list literal it would be a thousand lines
)


def random_phrase(rng: random.Random, words: int) -> str:
    """Words in any order, some of them capitalized, with punctuation now and then."""
    chosen = [rng.choice(WORDS) for _ in range(words)]
    shaped = [word.capitalize() if rng.random() < 0.15 else word for word in chosen]
    marked = [word + rng.choice(",.:;!?-'") if rng.random() < 0.12 else word for word in shaped]
    return " ".join(word + "s" if rng.random() < 0.08 and word.isalpha() else word for word in marked)
