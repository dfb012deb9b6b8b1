"""Where tests let snapshots go."""


class Memory:
    """A sink that remembers all, and how often it was reset."""

    def __init__(self):
        self.data = bytearray()
        self.resets = 0

    def write(self, data):
        self.data += data

    def reset(self):
        self.data.clear()
        self.resets += 1
