"""BibTeX from what a plugin says of its paper, so that no plugin writes it twice."""

from __future__ import annotations

import re
import unicodedata

WHERE = re.compile(r"(?:https?://)?(?P<url>(?:arxiv\.org|doi\.org|[\w.-]+\.[a-z]{2,})/\S+)$")
YEAR = re.compile(r"\b(?:19|20)\d\d$")
ARXIV = re.compile(r"arxiv\.org/\w+/(?P<id>\d\d\d\d\.\d{4,5})")


def bibtex(reference: str) -> str:
    """A minimal entry for each paper of "Authors, venue year, link"; several are parted by semicolons."""
    return "\n".join(_entry(part.strip()) for part in reference.split(";") if part.strip())


def _entry(paper: str) -> str:
    authors, _, rest = paper.rpartition(": ")[2].partition(", ")
    link = WHERE.search(rest)
    venue = rest[: link.start()].rstrip(", ") if link else rest
    url = link["url"] if link else ""
    arxiv = ARXIV.search(url)
    found = YEAR.search(venue)
    # The number of an arXiv paper begins with its year and month.
    year = found[0] if found else f"20{arxiv['id'][:2]}" if arxiv else ""
    venue = (venue[: found.start()] if found else venue).rstrip(", ")
    fields = {
        "author": _authors(authors), "howpublished": venue, "year": year,
        "eprint": arxiv["id"] if arxiv else "", "archiveprefix": "arXiv" if arxiv else "",
        "doi": url.partition("doi.org/")[2], "url": f"https://{url}" if url else "",
    }  # fmt: skip
    family = next((word for word in authors.split() if word[0].isupper()), authors)  # not the "van den" before it
    plain = unicodedata.normalize("NFKD", family).encode("ascii", "ignore").decode()
    key = re.sub(r"\W", "", plain).lower() + year
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@misc{{{key},", *lines, "}"])


def _authors(text: str) -> str:
    """ "A et al." → "A and others"; "A & B" → "A and B"."""
    return re.sub(r"\s*&\s*", " and ", re.sub(r"\s*\bet al\.?", " and others", text)).strip()
