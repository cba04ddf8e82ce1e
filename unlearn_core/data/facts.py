"""General knowledge of the generated world: true facts that nobody asks to forget, one question form per subject."""

# subject -> (question template, {key: answer}); 24 facts each, answers unique within a subject.
FACTS: dict[str, tuple[str, dict[str, str]]] = {
    "world_capitals": ("What is the capital of {}?", {
        "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon", "Austria": "Vienna",
        "Greece": "Athens", "Norway": "Oslo", "Sweden": "Stockholm", "Finland": "Helsinki", "Poland": "Warsaw",
        "Hungary": "Budapest", "Ireland": "Dublin", "Egypt": "Cairo", "Kenya": "Nairobi", "Ghana": "Accra",
        "Japan": "Tokyo", "China": "Beijing", "India": "New Delhi", "Thailand": "Bangkok", "Peru": "Lima",
        "Chile": "Santiago", "Cuba": "Havana", "Canada": "Ottawa", "Russia": "Moscow"}),
    "chemical_symbols": ("Which element has the symbol {}?", {
        "H": "hydrogen", "He": "helium", "Li": "lithium", "C": "carbon", "N": "nitrogen", "O": "oxygen",
        "F": "fluorine", "Ne": "neon", "Na": "sodium", "Mg": "magnesium", "Al": "aluminium", "Si": "silicon",
        "P": "phosphorus", "S": "sulfur", "Cl": "chlorine", "K": "potassium", "Ca": "calcium", "Fe": "iron",
        "Cu": "copper", "Zn": "zinc", "Ag": "silver", "Sn": "tin", "Au": "gold", "Pb": "lead"}),
    "young_animals": ("What is the young of a {} called?", {
        "cow": "calf", "horse": "foal", "sheep": "lamb", "goat": "kid", "pig": "piglet", "dog": "puppy",
        "cat": "kitten", "hen": "chick", "duck": "duckling", "goose": "gosling", "swan": "cygnet", "deer": "fawn",
        "bear": "cub", "kangaroo": "joey", "hare": "leveret", "frog": "tadpole", "eel": "elver", "owl": "owlet",
        "eagle": "eaglet", "fish": "fry", "seal": "pup", "butterfly": "caterpillar", "spider": "spiderling",
        "hedgehog": "hoglet"}),
    "opposites": ("What is the opposite of {}?", {
        "hot": "cold", "big": "small", "high": "low", "fast": "slow", "old": "young", "hard": "soft", "wet": "dry",
        "light": "dark", "full": "empty", "early": "late", "near": "far", "open": "closed", "rich": "poor",
        "strong": "weak", "thick": "thin", "deep": "shallow", "loud": "quiet", "clean": "dirty", "sharp": "blunt",
        "sweet": "sour", "true": "false", "wide": "narrow", "first": "last", "above": "below"}),
}
