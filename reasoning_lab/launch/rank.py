"""The program that torchrun starts for each rank: `python -m reasoning_lab.launch.rank FOLDER`.

The verifier's workers import the main module of their parent process, which is this one. Imports
stay inside the block below, or each worker would import torch as well.
"""

if __name__ == "__main__":
    from reasoning_lab.system.gc_frozen_imports import gc_frozen_imports

    with gc_frozen_imports():
        from reasoning_lab.launch.job import main
    main()
