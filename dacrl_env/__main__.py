"""``python -m dacrl_env``."""

import sys

from dacrl_env.cli import main

sys.exit(main())
