"""Text of others, before a person sees it: without characters that make a terminal do more than show it."""


def printable(text: str, keep: str = "") -> str:
    """`text` with every character replaced that cannot be printed, but those in `keep`."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in keep else "\N{REPLACEMENT CHARACTER}" for each in text)
