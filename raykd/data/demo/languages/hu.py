"""Hungarian demo sentences."""

from raykd.data.demo.grammar import Grammar, calendar, cross, phrases, spell

# Two at the end is "kettő" alone but "két" before a noun; num2words mixes them up.
_STEMS = [word.removesuffix("kettő").removesuffix("két") for word in spell("hu", range(1000))]
NUMBERS = [stem + "kettő" if n % 10 == 2 else stem for n, stem in enumerate(_STEMS)]
COUNTS = [stem + "két" if n % 10 == 2 else stem for n, stem in enumerate(_STEMS)]

DAYS = phrases("""
    elseje, másodika, harmadika, negyedike, ötödike, hatodika, hetedike, nyolcadika, kilencedike, tizedike, tizenegyedike,
    tizenkettedike, tizenharmadika, tizennegyedike, tizenötödike, tizenhatodika, tizenhetedike, tizennyolcadika,
    tizenkilencedike, huszadika, huszonegyedike, huszonkettedike, huszonharmadika, huszonnegyedike, huszonötödike,
    huszonhatodika, huszonhetedike, huszonnyolcadika, huszonkilencedike, harmincadika, harmincegyedike""")
MONTHS = phrases("""
    január, február, március, április, május, június, július, augusztus, szeptember, október, november, december""")

GIVEN_NAMES = phrases("""
    istván, jános, zoltán, péter, gábor, attila, tamás, balázs, andrás, csaba, ferenc, sándor, lászló, józsef, miklós,
    márton, ádám, dániel, bence, gergő, mária, erzsébet, katalin, ilona, éva, anna, zsuzsanna, judit, ágnes, andrea,
    erika, krisztina, eszter, réka, nóra, piroska, gabriella, melinda, tímea, dóra""")
FAMILY_NAMES = phrases("""
    nagy, kovács, tóth, szabó, horváth, varga, kiss, molnár, németh, farkas, balogh, papp, takács, juhász, lakatos,
    mészáros, oláh, simon, rácz, fekete""")


def on(day: str) -> str:
    """The day when: "elseje" -> "elsején", "másodika" -> "másodikán"."""
    return day[:-1] + {"a": "án", "e": "én"}[day[-1]]


GRAMMAR = Grammar(
    "hu",
    {
        "number": NUMBERS,
        "teen": NUMBERS[10:100],
        "digit": NUMBERS[:10],
        "count": COUNTS[2:],
        "warm": COUNTS[2:40],
        "hour": [f"{COUNTS[n]} óra" for n in range(1, 24)],
        "at_hour": [f"{COUNTS[n]} órakor" for n in range(1, 24)],
        "minutes": [f"{COUNTS[n]} perc" for n in range(1, 60)],
        "date": calendar(lambda day, month: f"{MONTHS[month]} {DAYS[day - 1]}"),
        "on_date": calendar(lambda day, month: f"{MONTHS[month]} {on(DAYS[day - 1])}"),
        "weekday": "hétfő, kedd, szerda, csütörtök, péntek, szombat, vasárnap",
        "on_weekday": "hétfőn, kedden, szerdán, csütörtökön, pénteken, szombaton, vasárnap",
        "event": """a koncert, a találkozó, az ebéd, a film, a meccs, az óra, az előadás, a vacsora, a vizsga,
            az ünnepség""",
        "price": [f"{COUNTS[n]} forint" for n in range(2, 1000)],
        "item": "a kenyér, a kávé, a jegy, a könyv, az ebéd, a táska, a lámpa, az esernyő, a sapka, a bögre",
        "first": GIVEN_NAMES,
        "person": cross(FAMILY_NAMES, GIVEN_NAMES),
        "vehicle": "a vonat, a busz, az expressz, a gyorsvonat, az éjszakai vonat",
        "from": """budapestről, debrecenből, szegedről, pécsről, győrből, miskolcról, egerből, sopronból, kecskemétről,
            szombathelyről, veszprémből, szolnokról""",
        "to": """kaposvárra, békéscsabára, zalaegerszegre, nyíregyházára, tatabányára, esztergomba, vácra, siófokra,
            mohácsra, tokajba, gyulára, bajára""",
        "in_city": """budapesten, debrecenben, szegeden, pécsen, győrben, miskolcon, egerben, sopronban, kecskeméten,
            szombathelyen, veszprémben, szolnokon, kaposváron, esztergomban, vácon, siófokon, tokajban, gyulán""",
        "runs": """késik, pontosan érkezik, ma nem jár, hamarosan indul, most indul, már elindult, később indul,
            zsúfolásig megtelt""",
        "please": "kérlek, most, aztán, gyorsan, először",
        "switch": "kapcsold be, kapcsold ki, ellenőrizd, javítsd meg",
        "device": """a lámpát, a rádiót, a televíziót, a fűtést, a ventilátort, a számítógépet, a légkondit, a mosógépet,
            a hangszórót, a kamerát""",
        "in_room": """a konyhában, a nappaliban, a hálószobában, a fürdőszobában, a folyosón, a dolgozószobában,
            a gyerekszobában, a teraszon, a garázsban, a pincében, az ebédlőben, az erkélyen""",
        "get": "vegyél, rendelj, hozz, kérj",
        "food": """kenyeret, tejet, vajat, sajtot, almát, banánt, kávét, teát, cukrot, lisztet, tojást, vizet, rizst,
            tésztát, paradicsomot, uborkát, húst, halat, mézet, csokoládét""",
        "for": "a boltban, a piacon, hazafelé, vacsorára, a hétvégére, a nagymamának",
        "when": "ma, holnap, reggel, este, délután, hétfőn, pénteken, a hétvégén, ebéd után, minden nap",
        "todo": """hívjam fel a nagymamát, fizessem ki a számlát, öntözzem meg a virágokat, vigyem le a szemetet,
            írjak levelet, menjek orvoshoz, mossam le az autót, etessem meg a macskát, vegyem át a csomagot,
            takarítsam ki a szobát""",
        "subject": """a nővérem, a bátyám, a szomszédunk, a tanárnő, az idős úr, a kislány, a fiuk, a nagymamánk,
            a nagyapám, az új kolléga, a fiatal orvos, a vidám eladó, az edzőnk, a nagynénéd, a barátja, a kedves nagybácsi,
            egy diák, egy asszony, az apám, a lányotok""",
        "does": """ebédet főz, könyvet olvas, zongorázik, dolgozni megy, levelet ír, kenyeret vesz, mosogat, biciklizik,
            teát iszik, énekel, szobát takarít, az ágyban alszik, autót szerel, virágot öntöz, képet fest, a parkban fut,
            rádiót hallgat, a vonatra vár, a kulcsát keresi, angolul tanul, süteményt süt, a folyóban úszik, gombát szed,
            haza telefonál, a színpadon táncol""",
        "building": """a posta, a gyógyszertár, a könyvtár, az iskola, a kávézó, a kórház, a pékség, a galéria, az étterem,
            a cukrászda""",
        "may": "tud, akar, szeretne, fog",
        "infinitive": """később jönni, teherautót vezetni, otthon maradni, korábban elmenni, keringőt táncolni, síelni,
            a szomszédoknak segíteni, sakkozni, németül beszélni, jegyet venni, odakint várni, ablakot nyitni,
            ajándékot kapni, verset írni, lovagolni""",
        "long": "a híd, az alagút, a kötél, a járda, a kerítés, a medence",
        "heavy": "a csomag, a bőrönd, a gép, a rakomány, az asztal, a kő",
    },
    number="""
        {number}
        a szám {number}
        az eredmény {number}
        a szoba száma {number}
        a vonal száma {number}
        az oldalszám {number}
        {teen} meg {digit}
        {teen} mínusz {digit}
    """,
    time="""
        {hour} {minutes} van
        pontosan {hour} {minutes} van
        a vonat {hour} {minutes}kor indul
        {hour} {minutes}kor találkozunk
        az ébresztő {hour} {minutes}kor szól
        {event} {at_hour} kezdődik
        {event} {at_hour} ér véget
        {on_weekday} {at_hour} jövök
    """,
    date="""
        ma {date} van
        ma {weekday} {date} van
        {on_date} találkozunk
        {event} {on_date} lesz
        {on_weekday} {on_date} szabadnap lesz
        {first} {on_date} ünnepel
    """,
    price="""
        {price}
        ez {price}ba kerül
        összesen {price} lesz
        fizessen {price}ot
        a kedvezmény {price}
        {item} {price}ba kerül
    """,
    name="""
        a nevem {person}
        {person} telefonál
        {person} érkezik
        jó napot {person} vagyok
        a következő {person}
        a vonalban {person} van
        holnap jön {person}
        önt keresi {person}
    """,
    place="""
        {vehicle} {from} {to} {runs}
        az út {from} {to} {minutes}
        {first} {in_city} lakik
        {first} {in_city} dolgozik
        {first} {from} {to} utazik
    """,
    command="""
        {switch} {device} {in_room}
        {please} {switch} {device} {in_room}
        {get} {food} {for}
        {please} {get} {food} {for}
        emlékeztess hogy {when} {todo}
    """,
    statement="""
        {subject} {does}
        {subject} {when} {does}
        {when} {subject} {does}
    """,
    question="""
        hol van itt {building}
        mikor nyit {building}
        milyen messze van {building}
        lehet hogy {subject} {does}
        {subject} {may} {infinitive}
    """,
    measure="""
        kint {warm} fok van
        {long} {count} méter hosszú
        {heavy} {count} kilogramm
        {count} kilométert utaztunk
    """,
)
