"""Files of ILSVRC known to be odd, with who says so; `check` finds them by decoding all."""

# TensorFlow's list for ILSVRC-2012.
_PNG_2012 = "n02105855_2933"
_CMYK_2012 = """
    n01739381_1309 n02077923_14822 n02447366_23489 n02492035_15739 n02747177_10752 n03018349_4028
    n03062245_4620 n03347037_9675 n03467068_12171 n03529860_11437 n03544143_17228 n03633091_5218
    n03710637_5125 n03961711_5286 n04033995_2932 n04258138_17003 n04264628_27969 n04336792_7448
    n04371774_5854 n04596742_4225 n07583066_647 n13037406_4650
"""
# One builder's list for ILSVRC-2010, not cross-checked.
_GZIP_2010 = "n02487347_1956"
_EXTRA_2010 = "n01669191_10054 n02882647_18811"
_CMYK_2010 = """
    val_00014712 val_00040086 val_00041418 test_00099846 test_00149181 n01739381_1309
    n02747177_10752 n02872752_3721 n03109150_15092 n03329302_553 n03347037_9675 n03359436_9884
    n03633091_5218 n03710637_5125 n04033995_2932 n04453156_5048 n04517823_2387 n04596742_4225
"""

KNOWN: dict[str, dict[str, str]] = {
    "ILSVRC-2012": {_PNG_2012: "PNG", **dict.fromkeys(_CMYK_2012.split(), "CMYK")},
    "ILSVRC-2010": {
        _GZIP_2010: "gzip-compressed",
        **dict.fromkeys(_EXTRA_2010.split(), "bytes after the end"),
        **dict.fromkeys(_CMYK_2010.split(), "CMYK"),
    },
}
SOURCES = {
    "ILSVRC-2012": "TensorFlow's list",
    "ILSVRC-2010": "one builder's list, not cross-checked",
}


def known_as(stem: str) -> str:
    """Where a file is known from, by its name without suffix; empty for the others."""
    stem = stem.removeprefix("ILSVRC2010_").removeprefix("ILSVRC2012_")
    sets = [name for name, table in KNOWN.items() if stem in table]
    return " and ".join(f"{name} ({SOURCES[name]})" for name in sets)
