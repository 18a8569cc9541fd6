"""English demo sentences."""

from raykd.data.demo.grammar import Grammar, calendar, cross, phrases, spell

NUMBERS = spell("en", range(1000))
ORDINALS = spell("en", range(1, 32), ordinal=True)
MONTHS = phrases("""
    january, february, march, april, may, june, july, august, september, october, november, december""")

NAMES = phrases("""
    james, john, robert, michael, david, william, richard, joseph, thomas, charles, daniel, matthew, anthony, steven, paul,
    andrew, joshua, kevin, brian, george, mary, patricia, jennifer, linda, elizabeth, barbara, susan, jessica, sarah, karen,
    lisa, nancy, betty, sandra, margaret, ashley, emily, donna, carol, helen""")
SURNAMES = phrases("""
    smith, jones, taylor, brown, wilson, evans, walker, white, roberts, green, hall, wood, jackson, clarke, harris, cooper,
    king, baker, turner, hill""")

GRAMMAR = Grammar(
    "en",
    {
        "number": NUMBERS,
        "teen": NUMBERS[10:100],
        "digit": NUMBERS[:10],
        "count": NUMBERS[2:],
        "warm": NUMBERS[2:40],
        "hour": NUMBERS[1:13],
        "minute": [*(f"oh {number}" for number in NUMBERS[1:10]), *NUMBERS[10:60]],
        "minutes": [f"{number} minutes" for number in NUMBERS[2:60]],
        "half": "in the morning, in the afternoon, in the evening",
        "date": calendar(lambda day, month: f"the {ORDINALS[day - 1]} of {MONTHS[month]}"),
        "weekday": "monday, tuesday, wednesday, thursday, friday, saturday, sunday",
        "event": """the concert, the meeting, the lunch, the film, the match, the lesson, the lecture, the dinner,
            the exam, the party""",
        "price": [f"{number} pounds" for number in NUMBERS[2:]],
        "item": """the bread, the coffee, the ticket, the book, the lunch, the bag, the lamp, the umbrella, the hat,
            the mug""",
        "first": NAMES,
        "person": cross(NAMES, SURNAMES),
        "vehicle": "the train, the bus, the express, the coach, the night train",
        "from": """from london, from leeds, from bristol, from oxford, from york, from cardiff, from glasgow, from dover,
            from bath, from durham, from exeter, from norwich""",
        "to": """to liverpool, to cambridge, to brighton, to sheffield, to plymouth, to edinburgh, to belfast, to derby,
            to chester, to preston, to swansea, to aberdeen""",
        "in_city": """in london, in leeds, in bristol, in oxford, in york, in cardiff, in glasgow, in dover, in bath,
            in durham, in exeter, in norwich, in liverpool, in cambridge, in brighton, in derby, in chester, in preston""",
        "runs": """is late, is on time, is cancelled today, leaves in a moment, is full, has already left, arrives later,
            is at the station""",
        "please": "please, now, then, quickly, first",
        "switch": "switch on, switch off, check, repair",
        "device": """the light, the lamp, the radio, the television, the heating, the fan, the computer,
            the air conditioning, the speaker, the camera""",
        "in_room": """in the kitchen, in the living room, in the bedroom, in the bathroom, in the hall, in the study,
            in the nursery, on the terrace, in the garage, in the basement, in the dining room, on the balcony""",
        "get": "buy, order, bring, choose",
        "food": """some bread, some milk, some butter, some cheese, some apples, some bananas, some coffee, some tea,
            some sugar, some flour, some eggs, some water, some rice, some pasta, some tomatoes, some cucumbers, some meat,
            some fish, some honey, some chocolate""",
        "for": "at the shop, at the market, on the way home, for dinner, for the weekend, for grandmother",
        "when": """today, tomorrow, in the morning, in the evening, in the afternoon, on monday, on friday,
            at the weekend, after lunch, at noon""",
        "todo": """call grandmother, pay the bill, water the plants, take out the rubbish, write the letter, see the doctor,
            wash the car, feed the cat, collect the parcel, tidy the room""",
        "subject": """my sister, my brother, our neighbour, the teacher, the old man, the little girl, their son,
            our grandmother, my grandfather, the new colleague, the young doctor, the cheerful baker, our coach, your aunt,
            her friend, the kind uncle, every student, one woman, my father, your daughter""",
        "does": """cooks lunch, reads a book, plays the piano, goes to work, writes a letter, buys bread, washes the dishes,
            rides a bicycle, drinks tea, sings a song, cleans the room, sleeps in bed, repairs the car, waters the flowers,
            paints a picture, runs in the park, listens to the radio, waits for the train, looks for the keys,
            learns spanish, bakes a cake, swims in the river, picks mushrooms, calls home, dances on the stage""",
        "every": "often, always, never, usually, sometimes, rarely, seldom, only, now, still",
        "building": """the post office, the pharmacy, the library, the school, the museum, the hospital, the bakery,
            the gallery, the restaurant, the bank""",
        "may": "can, will, should, must",
        "infinitive": """come later, drive a lorry, stay at home, leave early, dance a waltz, go skiing,
            help the neighbours, play chess, speak german, get tickets, wait outside, open the window, receive a present,
            write poems, ride a horse""",
        "long": "the bridge, the tunnel, the rope, the pavement, the fence, the pool",
        "heavy": "the parcel, the suitcase, the machine, the load, the table, the stone",
    },
    number="""
        {number}
        number {number}
        the result is {number}
        room number {number}
        line {number}
        page {number}
        {teen} plus {digit}
        {teen} minus {digit}
    """,
    time="""
        it is {hour} {minute}
        it is exactly {hour} {minute}
        the train leaves at {hour} {minute}
        we meet at {hour} {minute}
        the alarm rings at {hour} {minute}
        {event} starts at {hour} {half}
        {event} ends at {hour} {half}
        i will come on {weekday} at {hour}
        the bus arrives at {hour} {minute}
        the shop closes at {hour} {minute}
    """,
    date="""
        today is {date}
        today is {weekday} {date}
        we meet on {date}
        {event} is on {date}
        {weekday} {date} is a holiday
        {first} was born on {date}
    """,
    price="""
        {price}
        that costs {price}
        together it is {price}
        you pay {price}
        the discount is {price}
        {item} costs {price}
    """,
    name="""
        my name is {person}
        this is {person}
        here comes {person}
        good morning i am {person}
        next in line is {person}
        on the phone is {person}
        tomorrow we meet {person}
        you are wanted by {person}
    """,
    place="""
        {vehicle} {from} {to} {runs}
        the trip {from} {to} takes {minutes}
        {first} lives {in_city}
        {first} works {in_city}
        {first} goes {from} {to}
    """,
    command="""
        {switch} {device} {in_room}
        {please} {switch} {device} {in_room}
        {get} {food} {for}
        {please} {get} {food} {for}
        remind me to {todo} {when}
    """,
    statement="""
        {subject} {does}
        {subject} {every} {does}
        {when} {subject} {does}
    """,
    question="""
        where is {building}
        when does {building} open
        how far is {building}
        why is it that {subject} {does}
        {may} {subject} {infinitive}
    """,
    measure="""
        outside it is {warm} degrees
        {long} is {count} metres long
        {heavy} weighs {count} kilos
        we travelled {count} kilometres
    """,
)
