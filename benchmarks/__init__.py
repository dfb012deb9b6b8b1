"""`make bench`: Backstay beside etcd's own tools, on the same data, in one run.

The servers are those of the tests: a real etcd and a real S3 server. Nothing here is part of the
product, and nothing in the product knows of it.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent

sys.path.insert(0, str(ROOT / "tests"))
