"""The vocabulary of the tasks."""

from __future__ import annotations


def split(text: str) -> tuple[str, ...]:
    """The words of ``text``."""
    return tuple(text.split())


NAMES = split(
    "Ada Alan Alice Amir Ana Anders Anna Arjun Astrid Ben Bianca Boris Bruno Carla Carlos Chen Clara Daniel Dara "
    "David Diego Dora Edith Elena Elias Emil Emma Erik Eva Farah Felix Fiona Frank Freya George Grace Greta Hana "
    "Hannah Hugo Ida Igor Ines Ingrid Iris Ivan Jack Jana Jonas Julia Kai Karim Karl Kate Klara Lars Laura Layla "
    "Lena Leo Liam Lina Lucas Lucy Luis Maja Marco Maria Mark Marta Martin Max Maya Mei Mila Milan Nadia Nora "
    "Noah Olga Oliver Omar Oscar Paula Pedro Peter Priya Rafael Rosa Ruth Sam Samir Sara Simon Sofia Stefan Tara "
    "Theo Thomas Tina Tom Uma Vera Victor Walter Wanda Yara Yusuf Zara Zoe"
)
SURNAMES = split(
    "Adams Baker Bauer Berg Brown Castro Clark Costa Cruz Diaz Evans Fischer Fuchs Garcia Gomez Gray Haas Hansen "
    "Hill Ito Jensen Jones Kato Khan Klein Kumar Lang Larsen Lee Lewis Lopez Meyer Moore Nagy Novak Olsen Ortiz "
    "Park Patel Perez Reed Rossi Roy Santos Sato Silva Singh Smith Stone Suzuki Tanaka Torres Vogel Walker Weber "
    "White Wolf Wong Young Zhang"
)
CITIES = split(
    "Accra Amman Ankara Athens Baku Bergen Berlin Bern Bogota Boston Brussels Cairo Chicago Cork Dakar Delhi "
    "Denver Dublin Geneva Ghent Hanoi Havana Helsinki Istanbul Jakarta Karachi Kiev Kyoto Lagos Lima Lisbon "
    "London Lyon Madrid Malaga Manila Miami Milan Mumbai Munich Nairobi Naples Nice Osaka Oslo Ottawa Oxford "
    "Paris Perth Porto Prague Quito Riga Rome Seoul Seville Sofia Split Sydney Tallinn Tampa Tokyo Toronto Tunis "
    "Turin Utrecht Vienna Vilnius Warsaw York Zagreb Zurich"
)
JOBS = split(
    "actor architect artist baker banker barber butcher carpenter chemist cook dancer dentist designer doctor "
    "driver editor engineer farmer gardener judge lawyer librarian mechanic miner musician nurse painter pilot "
    "plumber poet sailor scientist singer soldier tailor teacher writer"
)
NOUNS = split(
    "apple arrow bag ball banana basket bell bird boat book bottle bowl box bread bridge brush bus button cake "
    "camera candle car card carpet cat chair cheese clock cloud coat coin cup desk dog door dress drum egg engine "
    "feather fish flag flower forest fork garden gate glass glove grape guitar hammer hat horse house island "
    "jacket jar kettle key king knife ladder lake lamp leaf lemon letter lion map market mirror moon mouse "
    "mountain nail needle nest onion orange oven paper parrot pear pen pencil phone piano pillow plane plate "
    "pocket potato radio rain ring river road roof rope rose salt school sea shelf ship shirt shoe silver snow "
    "sock soup spoon star stone storm street sugar sun table tea tent tiger tomato tower train tree truck "
    "umbrella valley village violin wall watch water wheel whale wind window winter wolf wood yard zebra"
)
ITEMS = split(  # what people in word problems have
    "apples pears books coins cards pencils eggs shells stamps marbles cookies tickets roses keys stones cups balls "
    "buttons plums lemons badges candles ribbons bottles"
)
COLOURS = split("red blue green yellow black white brown purple pink grey orange silver")
MONTHS = split("January February March April May June July August September October November December")
DOMAINS = split("example.com example.org mail.net post.org inbox.com letters.net work.io home.org")
DRINKS = split("tea coffee milk juice water cocoa lemonade soup cider soda")
PETS = split("cat dog parrot rabbit hamster turtle pony goldfish lizard goat")
SPORTS = split("tennis football chess golf hockey rugby judo rowing skiing boxing cricket fencing")
SYLLABLES = split(
    "ba be bi bo da de di do fa fe fi ga go ka ke ki ko la le li lo lu ma me mi mo na ne ni no pa pe pi po ra re "
    "ri ro sa se si so ta te ti to tu va ve vi vo za zo"
)
