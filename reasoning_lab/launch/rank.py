"""What torchrun starts, once a device: `python -m reasoning_lab.launch.rank FOLDER`.

The verifier's workers import the main module of the process that they belong to, this one: what it
imported for itself, torch for instance, each of them would import too.
"""

if __name__ == "__main__":
    from reasoning_lab.system.gc_frozen_imports import gc_frozen_imports

    with gc_frozen_imports():
        from reasoning_lab.launch.job import main
    main()
