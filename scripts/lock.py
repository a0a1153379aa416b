"""Strip index addresses from ``uv.lock``.

uv records the address of every file it resolved. A lock that names an index only works where that index is reachable,
so the addresses are dropped and the file names and hashes are kept: ``make setup`` exports them and installs from
whichever index the machine is configured for, still refusing any file whose hash differs.
"""

import re
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "uv.lock"

text = LOCK.read_text()
text = re.sub(r'registry = "https?://[^"]*"', 'registry = "index"', text)
text = re.sub(r'\{ url = "https?://[^"]*/([^"/]+)"', r'{ path = "\1"', text)
# These two come and go with what the index happens to answer, and change nothing.
text = re.sub(r', (?:size = \d+|upload-time = "[^"]*")', "", text)
LOCK.write_text(text)
