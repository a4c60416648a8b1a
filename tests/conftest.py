import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data"

# Behind everything else: in front, the pack's own nodes/ would hide the host's nodes module.
sys.path.append(str(ROOT))
