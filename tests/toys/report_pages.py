"""The text of a report page, as a reader sees it."""

import html
import re

SCRIPT = re.compile(r"<script>.*?</script>|<style>.*?</style>", re.DOTALL)


def text_of(path):
    """Return the visible text of a page."""
    bare = re.sub(r"<[^>]+>", " ", SCRIPT.sub(" ", path.read_text(encoding="utf-8")))
    return re.sub(r"\s+", " ", html.unescape(bare))
