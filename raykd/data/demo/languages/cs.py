"""Czech demo sentences."""

import re

from raykd.data.demo.grammar import Grammar, calendar, cross, phrases, spell

# num2words writes the hundreds together ("pětset"), as on money orders; the norm is "pět set".
NUMBERS = [re.sub(r"(?<=[ěitm])(stě|sta|set)\b", r" \1", word) for word in spell("cs", range(1000))]
MANY = [n for n in range(5, 1000) if n % 100 not in (1, 2, 3, 4)]  # take the genitive plural: "pět korun"

HOURS = ["jedna hodina", "dvě hodiny", "tři hodiny", "čtyři hodiny", *(f"{NUMBERS[n]} hodin" for n in range(5, 24))]
IS_HOUR = [f"{'jsou' if hour.endswith('hodiny') else 'je'} {hour}" for hour in HOURS]
AT_HOUR = ["v jednu hodinu", *(f"{'ve' if hour.startswith(('dv', 'tř', 'čt')) else 'v'} {hour}" for hour in HOURS[1:])]

DAYS = phrases("""
    prvního, druhého, třetího, čtvrtého, pátého, šestého, sedmého, osmého, devátého, desátého, jedenáctého, dvanáctého,
    třináctého, čtrnáctého, patnáctého, šestnáctého, sedmnáctého, osmnáctého, devatenáctého, dvacátého, dvacátého prvního,
    dvacátého druhého, dvacátého třetího, dvacátého čtvrtého, dvacátého pátého, dvacátého šestého, dvacátého sedmého,
    dvacátého osmého, dvacátého devátého, třicátého, třicátého prvního""")
MONTHS = phrases("ledna, února, března, dubna, května, června, července, srpna, září, října, listopadu, prosince")

MEN = phrases("""
    jan, petr, pavel, tomáš, jiří, martin, jakub, lukáš, ondřej, karel, josef, michal, david, filip, adam, vojtěch, matěj,
    štěpán, václav, roman""")
WOMEN = phrases("""
    jana, eva, marie, lenka, kateřina, lucie, petra, tereza, alena, hana, martina, anna, zuzana, barbora, veronika, monika,
    klára, markéta, eliška, adéla""")
MENS_SURNAMES = phrases("""
    novák, svoboda, dvořák, černý, procházka, kučera, veselý, horák, němec, pokorný, pospíšil, marek, hájek, král, růžička,
    beneš, fiala, sedláček, zeman, kolář""")
WOMENS_SURNAMES = phrases("""
    nováková, svobodová, dvořáková, černá, procházková, kučerová, veselá, horáková, němcová, pokorná, pospíšilová, marková,
    hájková, králová, růžičková, benešová, fialová, sedláčková, zemanová, kolářová""")

GRAMMAR = Grammar(
    "cs",
    {
        "number": NUMBERS,
        "teen": NUMBERS[10:100],
        "digit": NUMBERS[:10],
        "many": [NUMBERS[n] for n in MANY],
        "warm": NUMBERS[5:40],
        "is_hour": IS_HOUR,
        "at_hour": AT_HOUR,
        "minutes": [f"{NUMBERS[n]} minut" for n in range(5, 60)],
        "date": calendar(lambda day, month: f"{DAYS[day - 1]} {MONTHS[month]}"),
        "weekday": "pondělí, úterý, středa, čtvrtek, pátek, sobota, neděle",
        "on_weekday": "v pondělí, v úterý, ve středu, ve čtvrtek, v pátek, v sobotu, v neděli",
        "event": "koncert, schůzka, oběd, film, zápas, škola, přednáška, večeře, zkouška, oslava",
        "price": [f"{NUMBERS[n]} korun" for n in MANY],
        "item": "chléb, káva, jízdenka, kniha, oběd, taška, lampa, deštník, čepice, hrnek",
        "first": [*MEN, *WOMEN],
        "person": [*cross(MEN, MENS_SURNAMES), *cross(WOMEN, WOMENS_SURNAMES)],
        "vehicle": "vlak, autobus, rychlík, spoj, noční vlak",
        "from": """z prahy, z brna, z ostravy, z plzně, z liberce, z olomouce, z pardubic, ze zlína, z tábora, z písku,
            z opavy, z berouna""",
        "to": """do hradce, do jihlavy, do kolína, do děčína, do mostu, do chebu, do třebíče, do znojma, do přerova,
            do trutnova, do klatov, do náchoda""",
        "in_city": """v praze, v brně, v ostravě, v plzni, v liberci, v olomouci, v pardubicích, ve zlíně, v táboře,
            v písku, v opavě, v jihlavě, v kolíně, v děčíně, v chebu, ve znojmě, v přerově, v trutnově""",
        "runs": """má zpoždění, jede včas, dnes nejede, odjíždí za chvíli, je plný, už odjel, přijede později,
            stojí na nádraží""",
        "please": "prosím, hned, teď, potom, rychle",
        "switch": "zapni, vypni, zkontroluj, oprav",
        "device": """světlo, lampu, rádio, televizi, topení, ventilátor, počítač, klimatizaci, pračku, kameru""",
        "in_room": """v kuchyni, v obýváku, v ložnici, v koupelně, na chodbě, v pracovně, v dětském pokoji, na terase,
            v garáži, ve sklepě, v jídelně, na balkoně""",
        "get": "kup, objednej, přines, vyber",
        "food": """chléb, mléko, máslo, sýr, jablka, banány, kávu, čaj, cukr, mouku, vejce, vodu, rýži, těstoviny,
            rajčata, okurky, maso, rybu, med, čokoládu""",
        "for": "v obchodě, na trhu, cestou domů, k večeři, na víkend, pro babičku",
        "when": "dnes, zítra, ráno, večer, odpoledne, v pondělí, v pátek, o víkendu, po obědě, každý den",
        "todo": """zavolat babičce, zaplatit účet, zalít květiny, vynést odpadky, napsat dopis, jít k lékaři, umýt auto,
            nakrmit kočku, vyzvednout balík, uklidit pokoj""",
        "subject": """moje sestra, můj bratr, náš soused, paní učitelka, starý pán, malá holka, jejich syn, naše babička,
            můj dědeček, nový kolega, mladý lékař, veselá prodavačka, náš trenér, tvoje teta, její kamarád, hodný strýc,
            každý student, jedna žena, můj otec, vaše dcera""",
        "does": """vaří oběd, čte knihu, hraje na klavír, jde do práce, píše dopis, kupuje chléb, myje nádobí, jede na kole,
            pije čaj, zpívá písničku, uklízí pokoj, spí v posteli, opravuje auto, zalévá květiny, maluje obraz,
            běhá v parku, poslouchá rádio, čeká na vlak, hledá klíče, učí se anglicky, peče koláč, plave v řece,
            sbírá houby, telefonuje domů, cvičí v tělocvičně""",
        "building": """pošta, lékárna, knihovna, banka, radnice, nemocnice, pekárna, galerie, restaurace, cukrárna""",
        "may": "může, chce, smí, umí",
        "infinitive": """přijít později, řídit auto, zůstat doma, odejít dřív, tančit valčík, lyžovat, pomoct sousedům,
            hrát šachy, mluvit německy, koupit lístky, počkat venku, otevřít okno, dostat dárek, psát básně,
            jezdit na koni""",
        "long": "most, tunel, provaz, chodník, plot, bazén",
        "heavy": "balík, kufr, stroj, náklad, stůl, kámen",
    },
    number="""
        {number}
        číslo {number}
        výsledek je {number}
        pokoj číslo {number}
        linka {number}
        strana {number}
        {teen} plus {digit}
        {teen} minus {digit}
    """,
    time="""
        {is_hour} {minutes}
        přesně {is_hour} {minutes}
        vlak jede {at_hour} {minutes}
        sejdeme se {at_hour} {minutes}
        budík zvoní {at_hour} {minutes}
        {event} začíná {at_hour}
        {event} končí {at_hour}
        přijdu {on_weekday} {at_hour}
    """,
    date="""
        dnes je {date}
        dnes je {weekday} {date}
        sejdeme se {date}
        {event} bude {date}
        {on_weekday} {date} máme volno
        {first} má svátek {date}
    """,
    price="""
        {price}
        stojí to {price}
        celkem to je {price}
        zaplatíte {price}
        sleva je {price}
        {item} stojí {price}
    """,
    name="""
        jmenuji se {person}
        volá {person}
        přichází {person}
        dobrý den volá {person}
        na řadě je {person}
        u telefonu je {person}
        zítra přijede {person}
        hledá vás {person}
    """,
    place="""
        {vehicle} {from} {to} {runs}
        cesta {from} {to} trvá {minutes}
        {first} bydlí {in_city}
        {first} pracuje {in_city}
        {first} jede {from} {to}
    """,
    command="""
        {switch} {device} {in_room}
        {please} {switch} {device} {in_room}
        {get} {food} {for}
        {please} {get} {food} {for}
        připomeň mi {when} {todo}
    """,
    statement="""
        {subject} {does}
        {subject} {when} {does}
        {when} {does} {subject}
    """,
    question="""
        kde je tady {building}
        kdy otevírá {building}
        jak daleko je {building}
        proč {subject} {does}
        {may} {subject} {infinitive}
    """,
    measure="""
        venku je {warm} stupňů
        {long} měří {many} metrů
        {heavy} váží {many} kilogramů
        ujeli jsme {many} kilometrů
    """,
)
