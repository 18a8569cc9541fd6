"""Polish demo sentences."""

from raykd.data.demo.grammar import Grammar, calendar, cross, phrases, spell

NUMBERS = spell("pl", range(1000))
ORDINALS = spell("pl", range(1, 32), ordinal=True)  # masculine nominative: "pierwszy", "drugi"
MANY = [n for n in range(5, 1000) if n % 10 not in (2, 3, 4) or n % 100 in (12, 13, 14)]  # "pięć złotych"

HOURS = phrases("""
    pierwsza, druga, trzecia, czwarta, piąta, szósta, siódma, ósma, dziewiąta, dziesiąta, jedenasta, dwunasta, trzynasta,
    czternasta, piętnasta, szesnasta, siedemnasta, osiemnasta, dziewiętnasta, dwudziesta, dwudziesta pierwsza,
    dwudziesta druga, dwudziesta trzecia""")
MONTHS = phrases("""
    stycznia, lutego, marca, kwietnia, maja, czerwca, lipca, sierpnia, września, października, listopada, grudnia""")

MEN = phrases("""
    jan, piotr, paweł, tomasz, andrzej, marcin, jakub, łukasz, adam, karol, michał, krzysztof, stanisław, marek, grzegorz,
    wojciech, mateusz, rafał, jerzy, dawid""")
WOMEN = phrases("""
    anna, maria, katarzyna, małgorzata, agnieszka, barbara, ewa, zofia, magdalena, joanna, monika, dorota, hanna, teresa,
    aleksandra, natalia, julia, beata, karolina, marta""")
MENS_SURNAMES = phrases("""
    nowak, kowalski, wiśniewski, wójcik, kamiński, lewandowski, zieliński, szymański, woźniak, dąbrowski, kozłowski, mazur,
    jankowski, kwiatkowski, krawczyk, piotrowski, grabowski, pawlak, michalski, król""")
WOMENS_SURNAMES = phrases("""
    nowak, kowalska, wiśniewska, wójcik, kamińska, lewandowska, zielińska, szymańska, woźniak, dąbrowska, kozłowska, mazur,
    jankowska, kwiatkowska, krawczyk, piotrowska, grabowska, pawlak, michalska, król""")


def genitive(ordinal: str) -> str:
    """The masculine genitive: "dwudziesty pierwszy" -> "dwudziestego pierwszego"."""
    return " ".join(word[:-1] + "ego" if word.endswith("y") else word + "ego" for word in ordinal.split())


def locative(hour: str) -> str:
    """The feminine locative: "dwudziesta druga" -> "dwudziestej drugiej"."""
    return " ".join(word[:-1] + ("iej" if word == "druga" else "ej") for word in hour.split())


GRAMMAR = Grammar(
    "pl",
    {
        "number": NUMBERS,
        "teen": NUMBERS[10:100],
        "digit": NUMBERS[:10],
        "many": [NUMBERS[n] for n in MANY],
        "warm": [NUMBERS[n] for n in MANY if n < 40],
        "hour": HOURS,
        "at_hour": [f"o {locative(hour)}" for hour in HOURS],
        "minute": NUMBERS[10:60],
        "minutes": [f"{NUMBERS[n]} minut" for n in MANY if n < 60],
        "date": calendar(lambda day, month: f"{ORDINALS[day - 1]} {MONTHS[month]}"),
        "on_date": calendar(lambda day, month: f"{genitive(ORDINALS[day - 1])} {MONTHS[month]}"),
        "weekday": "poniedziałek, wtorek, środa, czwartek, piątek, sobota, niedziela",
        "on_weekday": "w poniedziałek, we wtorek, w środę, w czwartek, w piątek, w sobotę, w niedzielę",
        "event": "koncert, spotkanie, obiad, film, mecz, lekcja, wykład, kolacja, egzamin, przyjęcie",
        "price": [f"{NUMBERS[n]} złot{'ych' if n in MANY else 'e'}" for n in range(5, 1000)],
        "item": "chleb, kawa, bilet, książka, obiad, torba, lampa, parasol, czapka, kubek",
        "first": [*MEN, *WOMEN],
        "person": [*cross(MEN, MENS_SURNAMES), *cross(WOMEN, WOMENS_SURNAMES)],
        "vehicle": "pociąg, autobus, ekspres, tramwaj, nocny pociąg",
        "from": """z warszawy, z krakowa, z łodzi, z wrocławia, z poznania, z gdańska, ze szczecina, z lublina, z katowic,
            z torunia, z opola, z gdyni""",
        "to": """do rzeszowa, do kielc, do radomia, do olsztyna, do częstochowy, do sopotu, do bydgoszczy, do zakopanego,
            do tarnowa, do płocka, do elbląga, do zamościa""",
        "in_city": """w warszawie, w krakowie, w łodzi, we wrocławiu, w poznaniu, w gdańsku, w szczecinie, w lublinie,
            w katowicach, w toruniu, w opolu, w gdyni, w rzeszowie, w kielcach, w radomiu, w olsztynie, w sopocie,
            w zakopanem""",
        "runs": """ma opóźnienie, jedzie punktualnie, dzisiaj nie jedzie, odjeżdża za chwilę, jest pełny, już odjechał,
            przyjedzie później, stoi na stacji""",
        "please": "proszę, teraz, potem, szybko, najpierw",
        "switch": "włącz, wyłącz, sprawdź, napraw",
        "device": """światło, lampę, radio, telewizor, ogrzewanie, wentylator, komputer, klimatyzację, pralkę, kamerę""",
        "in_room": """w kuchni, w salonie, w sypialni, w łazience, w przedpokoju, w gabinecie, w pokoju dziecka, na tarasie,
            w garażu, w piwnicy, w jadalni, na balkonie""",
        "get": "kup, zamów, przynieś, wybierz",
        "food": """chleb, mleko, masło, ser, jabłka, banany, kawę, herbatę, cukier, mąkę, jajka, wodę, ryż, makaron,
            pomidory, ogórki, mięso, rybę, miód, czekoladę""",
        "for": "w sklepie, na targu, po drodze do domu, na kolację, na weekend, dla babci",
        "when": "dzisiaj, jutro, rano, wieczorem, po południu, w poniedziałek, w piątek, w weekend, po obiedzie, codziennie",
        "todo": """zadzwonić do babci, zapłacić rachunek, podlać kwiaty, wynieść śmieci, napisać list, pójść do lekarza,
            umyć samochód, nakarmić kota, odebrać paczkę, posprzątać pokój""",
        "subject": """moja siostra, mój brat, nasz sąsiad, pani nauczycielka, starszy pan, mała dziewczynka, ich syn,
            nasza babcia, mój dziadek, nowy kolega, młody lekarz, wesoła sprzedawczyni, nasz trener, twoja ciocia,
            jej przyjaciel, dobry wujek, każdy student, pewna kobieta, mój ojciec, wasza córka""",
        "does": """gotuje obiad, czyta książkę, gra na pianinie, idzie do pracy, pisze list, kupuje chleb, zmywa naczynia,
            jedzie na rowerze, pije herbatę, śpiewa piosenkę, sprząta pokój, śpi w łóżku, naprawia samochód, podlewa kwiaty,
            maluje obraz, biega w parku, słucha radia, czeka na pociąg, szuka kluczy, uczy się angielskiego, piecze ciasto,
            pływa w rzece, zbiera grzyby, dzwoni do domu, ćwiczy na siłowni""",
        "building": """poczta, apteka, biblioteka, szkoła, kawiarnia, przychodnia, piekarnia, galeria, restauracja,
            cukiernia""",
        "may": "może, chce, musi, umie",
        "infinitive": """przyjść później, prowadzić ciężarówkę, zostać w domu, wyjść wcześniej, tańczyć walca,
            jeździć na nartach, pomagać sąsiadom, grać w szachy, mówić po niemiecku, kupić bilety, poczekać na zewnątrz,
            otworzyć okno, dostać prezent, pisać wiersze, jeździć konno""",
        "long": "most, tunel, sznur, chodnik, płot, basen",
        "heavy": "paczka, walizka, maszyna, ładunek, stół, kamień",
    },
    number="""
        {number}
        numer {number}
        wynik to {number}
        pokój numer {number}
        linia {number}
        strona {number}
        {teen} plus {digit}
        {teen} minus {digit}
    """,
    time="""
        jest {hour} {minute}
        jest dokładnie {hour} {minute}
        pociąg odjeżdża {at_hour} {minute}
        spotykamy się {at_hour} {minute}
        budzik dzwoni {at_hour} {minute}
        {event} zaczyna się {at_hour}
        {event} kończy się {at_hour}
        przyjdę {on_weekday} {at_hour}
    """,
    date="""
        dzisiaj jest {date}
        dzisiaj jest {weekday} {date}
        spotykamy się {on_date}
        {event} będzie {on_date}
        {on_weekday} {on_date} mamy wolne
        {first} ma urodziny {on_date}
    """,
    price="""
        {price}
        to kosztuje {price}
        razem będzie {price}
        proszę zapłacić {price}
        zniżka wynosi {price}
        {item} kosztuje {price}
    """,
    name="""
        nazywam się {person}
        dzwoni {person}
        przychodzi {person}
        dzień dobry mówi {person}
        w kolejce czeka {person}
        przy telefonie jest {person}
        jutro przyjedzie {person}
        szuka was {person}
    """,
    place="""
        {vehicle} {from} {to} {runs}
        podróż {from} {to} trwa {minutes}
        {first} mieszka {in_city}
        {first} pracuje {in_city}
        {first} jedzie {from} {to}
    """,
    command="""
        {switch} {device} {in_room}
        {please} {switch} {device} {in_room}
        {get} {food} {for}
        {please} {get} {food} {for}
        przypomnij mi {when} {todo}
    """,
    statement="""
        {subject} {does}
        {subject} {when} {does}
        {when} {does} {subject}
    """,
    question="""
        gdzie jest tutaj {building}
        kiedy otwiera się {building}
        jak daleko jest {building}
        dlaczego {subject} {does}
        czy {subject} {may} {infinitive}
    """,
    measure="""
        na dworze jest {warm} stopni
        {long} ma {many} metrów długości
        {heavy} waży {many} kilogramów
        przejechaliśmy {many} kilometrów
    """,
)
