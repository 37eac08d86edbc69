"""What every package stands on: files, the terminal, signals, options and the machine's processors.

Nothing here knows of images, networks or runs.
"""
