"""torchrun that ends when the stage that started it ends: ``python -m robolift.training.agent <torchrun options>``."""

from __future__ import annotations

import sys

from torch.distributed.run import main

from robolift.training.distributed import die_with_parent

if __name__ == "__main__":
    die_with_parent()
    main(sys.argv[1:])
