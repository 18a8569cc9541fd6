"""Catalan demo sentences."""

import re

from raykd.data.demo.grammar import Grammar, calendar, cross, phrases, spell

COUNTS = spell("ca", range(1000))
NUMBERS = [re.sub(r"\bun$", "u", word) for word in COUNTS]  # the number alone: "vint-i-u", but "vint-i-un euros"

HOURS = phrases("la una, les dues, les tres, les quatre, les cinc, les sis, les set, les vuit, les nou, les deu, les onze")
AT_HOUR = [
    *(f"a {hour} de la matinada" for hour in HOURS[:5]),
    *(f"a {hour} del matí" for hour in HOURS[5:]),
    "a les dotze del migdia",
    *(f"a {hour} de la tarda" for hour in HOURS[:7]),
    *(f"a {hour} del vespre" for hour in HOURS[7:9]),
    *(f"a {hour} de la nit" for hour in HOURS[9:]),
]
CLOCK_HOURS = [*HOURS, "les dotze"]

DAYS = ["primer", *NUMBERS[2:32]]
MONTHS = phrases("""
    de gener, de febrer, de març, d'abril, de maig, de juny, de juliol, d'agost, de setembre, d'octubre, de novembre,
    de desembre""")

NAMES = phrases("""
    joan, jordi, josep, pere, pau, marc, miquel, antoni, francesc, ramon, lluís, carles, enric, xavier, albert, martí,
    arnau, guillem, oriol, bernat, maria, anna, laia, marta, núria, montserrat, carme, rosa, teresa, elena, laura, júlia,
    clara, mireia, sílvia, mercè, aina, gemma, cristina, neus""")
SURNAMES = phrases("""
    garcia, martí, puig, vila, serra, soler, roca, bosch, ferrer, pujol, font, mas, casals, riera, prat, costa, rovira,
    torres, sala, camps""")


def the(day: str) -> str:
    """The day with its article: "el primer", "l'onze"."""
    return f"l'{day}" if day == "onze" else f"el {day}"


GRAMMAR = Grammar(
    "ca",
    {
        "number": NUMBERS,
        "teen": NUMBERS[10:100],
        "digit": NUMBERS[:10],
        "count": COUNTS[2:],
        "warm": COUNTS[2:40],
        "is_hour": [f"{'és' if hour == 'la una' else 'són'} {hour}" for hour in CLOCK_HOURS],
        "clock": [f"a {hour}" for hour in CLOCK_HOURS],
        "at_hour": AT_HOUR,
        "minutes": [f"{COUNTS[n]} minuts" for n in range(2, 60)],
        "date": calendar(lambda day, month: f"{DAYS[day - 1]} {MONTHS[month]}"),
        "on_date": calendar(lambda day, month: f"{the(DAYS[day - 1])} {MONTHS[month]}"),
        "weekday": "dilluns, dimarts, dimecres, dijous, divendres, dissabte, diumenge",
        "event": """el concert, la reunió, el dinar, la pel·lícula, el partit, la classe, la conferència, el sopar,
            l'examen, la festa""",
        "price": [f"{COUNTS[n]} euros" for n in range(2, 1000)],
        "item": "el pa, el cafè, el bitllet, el llibre, el dinar, la bossa, el llum, el paraigua, la gorra, la tassa",
        "first": NAMES,
        "person": cross(NAMES, SURNAMES),
        "vehicle": "el tren, l'autobús, l'exprés, el tramvia, el tren nocturn",
        "from": """de barcelona, de girona, de lleida, de tarragona, de reus, de sabadell, de manresa, de vic, de figueres,
            d'olot, d'igualada, de terrassa""",
        "to": """a mataró, a berga, a blanes, a tortosa, a valls, a solsona, a puigcerdà, a ripoll, a cervera, a balaguer,
            a gandesa, a montblanc""",
        "in_city": """a barcelona, a girona, a lleida, a tarragona, a reus, a sabadell, a manresa, a vic, a figueres, a olot,
            a igualada, a terrassa, a mataró, a berga, a blanes, a tortosa, a valls, a ripoll""",
        "runs": """va amb retard, arriba puntual, avui no circula, surt de seguida, va ple, ja ha sortit, arriba més tard,
            és a l'estació""",
        "please": "si us plau, ara, després, de pressa, primer",
        "switch": "encén, apaga, revisa, arregla",
        "device": """el llum, la ràdio, la televisió, la calefacció, el ventilador, l'ordinador, l'aire condicionat,
            la rentadora, l'altaveu, la càmera""",
        "in_room": """de la cuina, de la sala, del dormitori, del lavabo, del passadís, del despatx, de l'habitació,
            de la terrassa, del garatge, del soterrani, del menjador, del balcó""",
        "get": "compra, demana, porta, tria",
        "food": """pa, llet, mantega, formatge, pomes, plàtans, cafè, te, sucre, farina, ous, aigua, arròs, pasta, tomàquets,
            cogombres, carn, peix, mel, xocolata""",
        "for": "a la botiga, al mercat, de camí a casa, per sopar, per al cap de setmana, per a l'àvia",
        "when": """avui, demà, al matí, al vespre, a la tarda, dilluns, divendres, el cap de setmana, després de dinar,
            cada dia""",
        "todo": """trucar a l'àvia, pagar la factura, regar les plantes, llençar les escombraries, escriure la carta,
            anar al metge, rentar el cotxe, alimentar el gat, recollir el paquet, endreçar l'habitació""",
        "subject": """la meva germana, el meu germà, el nostre veí, la mestra, el senyor gran, la nena petita, el seu fill,
            la nostra àvia, el meu avi, el nou company, el metge jove, la venedora alegre, l'entrenador, la teva tieta,
            el seu amic, el bon oncle, cada estudiant, una dona, el meu pare, la vostra filla""",
        "does": """fa el dinar, llegeix un llibre, toca el piano, va a la feina, escriu una carta, compra pa, renta els plats,
            va en bicicleta, beu te, canta una cançó, neteja l'habitació, dorm al llit, repara el cotxe, rega les flors,
            pinta un quadre, corre pel parc, escolta la ràdio, espera el tren, busca les claus, aprèn anglès,
            prepara un pastís, neda al riu, cull bolets, truca a casa, balla a l'escenari""",
        "building": """la farmàcia, la biblioteca, l'escola, el restaurant, l'hospital, la fleca, la galeria, el museu,
            la pastisseria, l'ajuntament""",
        "may": "pot, vol, sap, necessita",
        "infinitive": """arribar més tard, conduir un camió, quedar-se a casa, marxar aviat, ballar un vals, esquiar,
            ajudar els veïns, jugar a escacs, parlar alemany, comprar entrades, esperar fora, obrir la finestra,
            rebre un regal, escriure poemes, muntar a cavall""",
        "long": "el pont, el túnel, la corda, la vorera, la tanca, la piscina",
        "heavy": "el paquet, la maleta, la màquina, la càrrega, la taula, la pedra",
    },
    number="""
        {number}
        número {number}
        el resultat és {number}
        habitació número {number}
        línia {number}
        pàgina {number}
        {teen} més {digit}
        {teen} menys {digit}
    """,
    time="""
        {is_hour} i {minutes}
        ara {is_hour} i {minutes}
        el tren surt {clock} i {minutes}
        ens trobem {clock} i {minutes}
        el despertador sona {clock} i {minutes}
        {event} comença {at_hour}
        {event} s'acaba {at_hour}
        {weekday} vindré {at_hour}
        l'autobús arriba {clock} i {minutes}
        tanquem {clock} i {minutes}
    """,
    date="""
        avui és {on_date}
        avui és {weekday} {date}
        ens trobem {on_date}
        {event} serà {on_date}
        {weekday} {date} fem festa
        {first} fa anys {on_date}
    """,
    price="""
        {price}
        això costa {price}
        en total són {price}
        heu de pagar {price}
        el descompte és de {price}
        {item} costa {price}
    """,
    name="""
        em dic {person}
        ha trucat {person}
        ara arriba {person}
        bon dia soc {person}
        a la cua hi ha {person}
        al telèfon hi ha {person}
        demà vindrà {person}
        us busca {person}
    """,
    place="""
        {vehicle} {from} {to} {runs}
        el viatge {from} {to} dura {minutes}
        {first} viu {in_city}
        {first} treballa {in_city}
        {first} va {from} {to}
    """,
    command="""
        {switch} {device} {in_room}
        {please} {switch} {device} {in_room}
        {get} {food} {for}
        {please} {get} {food} {for}
        recorda'm que {when} he de {todo}
    """,
    statement="""
        {subject} {does}
        {subject} {when} {does}
        {when} {subject} {does}
    """,
    question="""
        on és {building}
        quan obre {building}
        queda lluny {building}
        per què {does} {subject}
        {subject} {may} {infinitive}
    """,
    measure="""
        a fora estem a {warm} graus
        {long} fa {count} metres
        {heavy} pesa {count} quilos
        hem fet {count} quilòmetres
    """,
)
