"""Draw README's picture of the demo: run it, and save its page as ``docs/images/demo.svg``."""

import re
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from freshdata.demo.page import print_page
from freshdata.demo.run import SEED, Demo
from freshdata.services.instance import choose_instance
from freshdata.settings import load_settings

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "images" / "demo.svg"
# The template names a font to be downloaded; a picture in a repository should not fetch anything.
OFFLINE_FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)

console = Console(record=True, width=124, highlight=False)
outcome = Demo(choose_instance(load_settings(), "demo"), months=1, disorder=True, seed=SEED).run(tell=print)
print_page(console, outcome)
PICTURE.write_text(console.export_svg(title="make demo", code_format=OFFLINE_FORMAT))
