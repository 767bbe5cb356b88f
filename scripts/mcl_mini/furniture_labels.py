"""What each piece of furniture is: a table made by reading all 612 names of the catalogue.

A name that is not listed has no label and is not used: flat signs, sockets, tools, food, rooms, and
whatever has fewer than a dozen pieces. Windows are left out because most are variants of one mesh.
"""

NAMES = {
    "a chair": """
        Armchair; Baby high chair; Bar chair; Beach chair; Cafe chair; Chair; Chair with cushion;
        Child chair; Children chair; Class seat; Folding chair; Modern armchair; Oak chair; Osaka
        chair; Plastic chair; Rattan armchair; Ryokan chair; Teck chair; Winchester armchair
    """,
    "a table": """
        Bar table; Black table; Cafe table; Children table; Coffee table; Desk; Desk table;
        Folding table; Glass table; Oak table; Pool table; Rattan table; Round table; Table; Table
        on trestles; Table tennis; Table with tablecloth; Technical table; Wooden alder table;
        Wooden desk; Wooden table; Wooden teak table
    """,
    "a sofa": """
        Burlap sofa; Clear sofa; Convertible sofa BZ; Corner sofa; Couch; Futon couch; Rattan
        sofa; Sofa; Sofa 2 seats; Sofa 3 seats; Winchester sofa
    """,
    "a bed": """
        Baby bed; Bed; Bunk bed; Captain's bed; Child bed; Crib; Day bed; Futon; Hospital bed;
        Iron bed; Mezzanine bed
    """,
    "a cabinet": """
        Bedside table; Bookcase; Chest; Cupboard; Drawers cabinet; Dresser with drawers; Filing
        cabinet; Full bookcase; Glass door cabinet; High cabinet; Locked locker; Lower cabinet;
        Lower corner cabinet; Shelves; Small lower cabinet; Small upper cabinet; Television
        cabinet; TV stand; Upper cabinet; Upper corner cabinet; Upper shelves cabinet; Vertical
        shelves; Wardrobe
    """,
    "a lamp": """
        Camping lamp; Ceiling lamp; Chandelier lamp; Classic lamppost; Desk lamp; Hanging light;
        Japanese lantern; Lamp; Little lamp; Outdoor lamp; Park light; Pedestal vase lamp; Pendant
        lamp; Porch light; Street lamp; Street light; Wall lamp artwork; Wall light
    """,
    "a plant": """
        Acacia; Bamboo; Bended coconut tree; Blue pine under snow; Bonsai tree; Bush; Cactus;
        Christmas tree; Coconut tree; Copper beech; Cypress; Decorative plant; Ficus; Flowers;
        Indoor plant; Japanese maple; Little plant; Orchids; Palm tree; Peach blossom; Pine; Pine
        under snow; Plant; Poplar; Spathiphyllum; Spider plant; Succulent plant; Sycamore maple;
        Tulips; White lily; Yucca
    """,
    "a person": """
        Boy; Female; Girl; Holding female; Holding male; Lying down boy; Lying down female; Lying
        down male; Male; Mannequin female; Mannequin male; Sitting boy; Sitting female; Sitting
        girl; Sitting male
    """,
    "a vehicle": """
        Bicycle; Bike; Bus; Chevrolet; City bus; Concept Sedan 01; Concept Sedan 02; Concept Sedan
        02 Sport; Ford Focus; Fork lift; Motorbike; Peugeot 308 CC; Renault Scenic; Scooter; Seat
        Leon; Smart car; SUV; Tricycle; Truck; Van; VW new beetle; Yamaha YZR R6; Car model
    """,
    "a door": """
        Door; Double door; Double door with panes; Elevator door; Exterior door; Garage door;
        Glass door; Screen door
    """,
    "a bathroom fixture": """
        Basin; Bath; Bidet; Corner bathtub; Double vanity; Island bath; Small lavatory; Toilets
        unit; Urinal; Vanity; Washbasin
    """,
    "a container": """
        Baby bottle; Beer bottle; Beer glass; Bottle; Bowl; Cocktail glass; Coffee cup; Coffee
        mug; Cup; Flacon; Glass; Medicine bottle; Old jar; Plastic cup; Pottery; Spray bottle;
        Teapot; Utensils pot; Vase; Wine bottle; Yogurt bottle
    """,
}
WITH_FRONT = {
    "a chair",
    "a sofa",
    "a bed",
    "a cabinet",
    "a person",
    "a vehicle",
    "a bathroom fixture",
}

_LABEL_OF = {
    " ".join(name.split()): label for label, names in NAMES.items() for name in names.split(";")
}


def label_of(name: str) -> str | None:
    """The class of a piece by its catalogue name, or None if it is not used."""
    return _LABEL_OF.get(" ".join(name.split()))
