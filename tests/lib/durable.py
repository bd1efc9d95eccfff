"""An oracle of what outlives a loss of power: what was flushed, and nothing else for certain.

A write that was acknowledged is on a disk, perhaps in its cache. Only after a flush that began when it was acknowledged, or with FUA, is
it durable. A loss of power may bring back, for each block, anything that was there since the last moment that is known durable.
"""

from collections import defaultdict

from oracle import Oracle


class DurableOracle(Oracle):
    """As `Oracle`; after `power_lost` the legal contents are those that no flush has ruled out."""

    def __init__(self, blocks, seed, **options):
        super().__init__(blocks, seed, **options)
        # Per block, the versions that may come back.
        self._kept = defaultdict(lambda: [0])
        # What was once on every disk: (known since, first, count, version, cutoff). What ended before `cutoff` is overwritten by it.
        self._facts = []

    def sent(self, first, count, zero=False):
        with self._lock:
            version = super().sent(first, count, zero)
            for block in range(first, first + count):
                self._kept[block].append(version)
            return version

    def acked(self, first, count, version, fua=False):
        with self._lock:
            super().acked(first, count, version)
            fact = (self._tick(), first, count, version, self._sent[version])
            if fua:
                self._rule_out(fact)
            else:
                self._facts.append(fact)

    def check(self, block, content):
        with self._lock:
            super().check(block, content)
            settled = self.legal.get(block, [0])
            if len(settled) == 1 and len(self._kept[block]) > 1:
                now = self._tick()
                self._facts.append((now, block, 1, settled[0], now))

    def flush_sent(self):
        with self._lock:
            return self._tick()

    def flush_acked(self, began):
        """A flush that was sent at `began` was answered without an error."""
        with self._lock:
            due = [fact for fact in self._facts if fact[0] < began]
            self._facts = [fact for fact in self._facts if fact[0] >= began]
            for fact in due:
                self._rule_out(fact)

    def power_lost(self):
        """Every replica's disk lost what it had not made durable, each its own part of it."""
        with self._lock:
            self._facts = []
            for block, kept in self._kept.items():
                self.legal[block] = list(kept)

    def _rule_out(self, fact):
        _, first, count, version, cutoff = fact
        for block in range(first, first + count):
            self._kept[block] = [v for v in self._kept[block] if v == version or self._ended.get(v, cutoff) >= cutoff]
